//! Whole stories, as a user would live through them: what is to be seen from the outside when a fault meets an application.
//!
//! Where another file asks for one promise at a time, a story asks for all of them at once, in the order in which they matter.

mod ephemeral;
mod first_program;
mod overload;
mod split;
