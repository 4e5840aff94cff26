//! `#[task]`: a function as a kind of task. What it means is said where applications see it, in the crate `tenure`.

mod task;

/// Described where applications see it.
#[proc_macro_attribute]
pub fn task(options: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    task::expand(options.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
