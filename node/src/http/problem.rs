//! Errors on their way out.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::diagnostic::Diagnostic;
use crate::error::{Error, RETRY_AFTER};

/// What a route returns.
pub(super) type Answer = Result<Response, Diagnostic>;

impl IntoResponse for Diagnostic {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.to_problem())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.is_retryable() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER.as_secs()));
        }
        response
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Diagnostic::from(self).into_response()
    }
}
