//! Beside a function there comes a type of its name that handles tasks by calling it.
//!
//! ```text
//! #[task]                                                     the same function, and
//! async fn greet(name: String) -> Result<String, TaskError>   struct greet {}  impl TaskHandler for greet { const NAME = "greet"; … }
//! ```
//!
//! The type has braces, so that its name means nothing among values: `greet(…)` calls the function, and a variable may be called `greet`.
//!
//! # Invariants
//!
//! * What cannot be a task is refused here, at the word that is in the way and with a word that would do; what only the compiler can
//!   know (is the input read from JSON?) it says at the user's own types.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::parse::Parser as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, FnArg, ItemFn, LitStr, PatType, Result, ReturnType, Safety, Signature, Type};

/// What `#[task(options)]` before `item` stands for.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let function: ItemFn = syn::parse2(item).map_err(|error| Error::new(error.span(), "a task is an `async fn`"))?;
    let name = name(options, &function.sig)?;
    let returned = returned(&function.sig)?;
    let parameters = Parameters::of(&function.sig)?;
    let (input, unpacked, arguments) = (parameters.input(), parameters.unpacked(), parameters.arguments());
    let (visibility, ident) = (&function.vis, &function.sig.ident);
    let named = |word| move |attribute: &&Attribute| attribute.path().is_ident(word);
    let (docs, conditions) = (function.attrs.iter().filter(named("doc")), function.attrs.iter().filter(named("cfg")));
    let conditions: Vec<&Attribute> = conditions.collect();
    // At the type, where one that will not do is reported.
    let output = quote_spanned! { returned.span() => <#returned as ::tenure::Returned>::Output };
    let call = quote_spanned! { returned.span() => ::tenure::Returned::returned };
    // At the name, so that a future that cannot be sent between threads is reported there.
    let run = quote_spanned! { ident.span() =>
        async fn run(&self, cx: &::tenure::TaskCx, input: Self::Input) -> ::core::result::Result<Self::Output, ::tenure::TaskError>
    };
    Ok(quote! {
        #function

        #(#docs)*
        #(#conditions)*
        #[allow(non_camel_case_types, reason = "its name is the function's")]
        #[derive(Clone, Copy, Debug, Default)]
        #visibility struct #ident {}

        #(#conditions)*
        #[allow(deprecated, reason = "whoever uses the function is told")]
        impl ::tenure::TaskHandler for #ident {
            const NAME: &'static str = #name;
            type Input = #input;
            type Output = #output;

            #run {
                let _ = cx;
                let #unpacked = input;
                #call(#ident(#(#arguments),*).await)
            }
        }
    })
}

/// The name of the kind of task: the function's, unless there is another one in the options.
fn name(options: TokenStream, signature: &Signature) -> Result<LitStr> {
    let ident = &signature.ident;
    let mut name = None;
    let parser = syn::meta::parser(|option| {
        if option.path.is_ident("name") {
            let given: LitStr = option.value()?.parse()?;
            if given.value().is_empty() {
                return Err(Error::new(given.span(), "a kind of task has a name"));
            }
            name = Some(given);
            return Ok(());
        }
        let word = option.path.get_ident().map(ToString::to_string).unwrap_or_default();
        Err(option.error(match word.as_str() {
            "retries" | "backoff" | "priority" | "key" | "keep" | "needs" | "at_most_once" | "attempt_timeout" => {
                format!("whoever submits a task says this: `client.submit::<{ident}>(…).{word}(…)`")
            }
            "timeout" => {
                format!("whoever submits a task says this: `client.submit::<{ident}>(…).attempt_timeout(…)`")
            }
            _ => "the only option is the name of the kind of task: `#[task(name = \"…\")]`".to_owned(),
        }))
    });
    parser.parse2(options)?;
    // `r#match` is a good name for a function and none for a task.
    let own = || LitStr::new(ident.to_string().trim_start_matches("r#"), ident.span());
    Ok(name.unwrap_or_else(own))
}

/// The type that the function returns, or why there is no task in it.
fn returned(signature: &Signature) -> Result<&Type> {
    if signature.asyncness.is_none() {
        return Err(Error::new(signature.fn_token.span(), "a task is an `async fn`"));
    }
    if !signature.generics.params.is_empty() {
        let why = "a kind of task has one input and one output: implement `TaskHandler` for a generic type instead";
        return Err(Error::new(signature.generics.span(), why));
    }
    if signature.constness.is_some() || signature.abi.is_some() || matches!(signature.safety, Safety::Unsafe(_)) {
        return Err(Error::new(signature.span(), "a task is an `async fn` without further words"));
    }
    match &signature.output {
        ReturnType::Type(_, returned) => Ok(&**returned),
        ReturnType::Default => {
            Err(Error::new(signature.span(), "a task may fail: let it return a `Result<(), TaskError>`"))
        }
    }
}

/// What the function takes.
struct Parameters<'a> {
    takes_context: bool,
    inputs: Vec<&'a Type>,
}

impl<'a> Parameters<'a> {
    fn of(signature: &'a Signature) -> Result<Self> {
        let mut parameters = Self { takes_context: false, inputs: Vec::new() };
        for (place, parameter) in signature.inputs.iter().enumerate() {
            let FnArg::Typed(PatType { ty, .. }) = parameter else {
                let why = "a task that has a state is a type: implement `TaskHandler` for it";
                return Err(Error::new(parameter.span(), why));
            };
            match &**ty {
                Type::Reference(context) if is_context(&context.elem) && context.mutability.is_none() => {
                    if place > 0 {
                        return Err(Error::new(parameter.span(), "the context comes first"));
                    }
                    parameters.takes_context = true;
                }
                Type::Reference(context) if is_context(&context.elem) => {
                    return Err(Error::new(ty.span(), "the context is only looked at: `&TaskCx`"));
                }
                Type::Reference(_) => {
                    let why = "an input is read from JSON, and owned: `String` instead of `&str` (only the context is `&TaskCx`)";
                    return Err(Error::new(ty.span(), why));
                }
                context if is_context(context) => return Err(Error::new(ty.span(), "the context is `&TaskCx`")),
                input => parameters.inputs.push(input),
            }
        }
        Ok(parameters)
    }

    /// The type of the input: one alone is itself, several are a tuple.
    fn input(&self) -> TokenStream {
        match self.inputs.as_slice() {
            [one] => quote! { #one },
            many => quote! { (#(#many,)*) },
        }
    }

    /// A pattern for the input.
    fn unpacked(&self) -> TokenStream {
        let names = self.names();
        if let [one] = names.as_slice() {
            quote! { #one }
        } else {
            quote! { (#(#names,)*) }
        }
    }

    /// What the function is called with.
    fn arguments(&self) -> Vec<TokenStream> {
        let context = self.takes_context.then(|| quote! { cx });
        context.into_iter().chain(self.names().into_iter().map(|name| quote! { #name })).collect()
    }

    fn names(&self) -> Vec<syn::Ident> {
        (0..self.inputs.len()).map(|number| format_ident!("input_{number}")).collect()
    }
}

fn is_context(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "TaskCx"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(options: &str, item: &str) -> std::result::Result<String, String> {
        let tokens = |text: &str| text.parse::<TokenStream>().expect("a test has tokens");
        let expanded = expand(tokens(options), tokens(item)).map_err(|error| error.to_string())?;
        syn::parse2::<syn::File>(expanded.clone()).expect("what comes out is Rust");
        Ok(expanded.to_string().replace(' ', ""))
    }

    #[test]
    fn a_function_gets_a_handler_of_its_name() {
        let greet = "/// Greets.\n pub async fn greet(cx: &TaskCx, name: String) -> Result<String, TaskError> { body(cx, name) }";
        let text = expanded("", greet).unwrap();
        for part in [
            "pubasyncfngreet(cx:&TaskCx,name:String)",
            "pubstructgreet{}",
            "impl::tenure::TaskHandlerforgreet",
            "NAME:&'staticstr=\"greet\"",
            "typeInput=String;",
            "letinput_0=input;",
            "greet(cx,input_0).await",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(text.matches("Greets.").count(), 2, "{text}");
    }

    #[test]
    fn several_inputs_are_a_tuple_and_none_is_nothing() {
        let add = expanded("", "async fn add(a: i64, b: i64) -> Result<i64, TaskError> { Ok(a + b) }").unwrap();
        assert!(add.contains("typeInput=(i64,i64,);") && add.contains("add(input_0,input_1).await"), "{add}");
        let tick = expanded("", "async fn tick() -> Result<(), TaskError> { Ok(()) }").unwrap();
        assert!(tick.contains("typeInput=();") && tick.contains("tick().await"), "{tick}");
    }

    #[test]
    fn a_kind_may_have_another_name_than_its_function() {
        let text = expanded("name = \"photos.resize\"", "async fn resize() -> R { body() }").unwrap();
        assert!(text.contains("NAME:&'staticstr=\"photos.resize\""), "{text}");
        let raw = expanded("", "async fn r#match() -> R { body() }").unwrap();
        assert!(raw.contains("NAME:&'staticstr=\"match\""), "{raw}");
    }

    #[test]
    fn conditions_hold_for_all_of_it_and_other_attributes_for_the_function() {
        let text = expanded("", "#[cfg(unix)] #[instrument] async fn tick() -> R { body() }").unwrap();
        assert_eq!((text.matches("#[cfg(unix)]").count(), text.matches("#[instrument]").count()), (3, 1), "{text}");
        assert!(text.starts_with("#[cfg(unix)]#[instrument]asyncfntick"), "{text}");
    }

    #[test]
    fn what_is_no_task_is_told_what_would_be_one() {
        for (options, item, told) in [
            ("", "struct Greet;", "a task is an `async fn`"),
            ("", "fn greet() -> R { body() }", "a task is an `async fn`"),
            ("", "async fn greet<T>(t: T) -> R { body() }", "implement `TaskHandler` for a generic type"),
            ("", "async unsafe fn greet() -> R { body() }", "without further words"),
            ("", "async fn greet() {}", "let it return a `Result<(), TaskError>`"),
            ("", "async fn greet(&self) -> R { body() }", "a task that has a state is a type"),
            ("", "async fn greet(name: &str) -> R { body() }", "`String` instead of `&str`"),
            ("", "async fn greet(name: String, cx: &TaskCx) -> R { body() }", "the context comes first"),
            ("", "async fn greet(cx: tenure::TaskCx) -> R { body() }", "the context is `&TaskCx`"),
            ("", "async fn greet(cx: &mut TaskCx) -> R { body() }", "the context is only looked at"),
            ("retries = 5", "async fn greet() -> R { body() }", "client.submit::<greet>(…).retries(…)"),
            ("timeout = \"1s\"", "async fn greet() -> R { body() }", "client.submit::<greet>(…).attempt_timeout(…)"),
            ("nmae = \"x\"", "async fn greet() -> R { body() }", "the only option is the name"),
            ("name = \"\"", "async fn greet() -> R { body() }", "a kind of task has a name"),
            ("name = 7", "async fn greet() -> R { body() }", "expected string literal"),
        ] {
            let refusal = expanded(options, item).expect_err(item);
            assert!(refusal.contains(told), "{item}: {refusal}");
        }
    }
}
