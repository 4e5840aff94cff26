//! The demo's kind of task: draws one frame.

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::picture;
use super::render::{FRAMES, Frame};
use crate::task::{RawHandler, TaskCx, TaskError};

/// The name of this kind of task.
pub const KIND: &str = "tenure.render";

/// Draws the frame whose number is the payload, and gives it back as a PNG file.
#[derive(Debug)]
pub(crate) struct Render;

impl RawHandler for Render {
    fn run<'a>(&'a self, _cx: &'a TaskCx, payload: Bytes) -> BoxFuture<'a, Result<Bytes, TaskError>> {
        async move {
            let number = std::str::from_utf8(&payload).ok().and_then(|text| text.trim().parse().ok());
            let number: u32 = number.ok_or_else(|| TaskError::fatal("the payload is no frame number"))?;
            // A frame is drawn in one go, also if the right to it ends meanwhile: the log judges the late result, and the
            // demo shows that it does.
            let frame = tokio::task::block_in_place(|| Frame::draw(number))
                .ok_or_else(|| TaskError::fatal(format!("there is no frame {number}: there are {FRAMES}")))?;
            Ok(picture::encode(&frame).into())
        }
        .boxed()
    }
}
