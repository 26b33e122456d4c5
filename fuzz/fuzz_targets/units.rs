//! Durations and sizes: what is printed reads as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stack::spec::units::{ByteSize, Span};

fuzz_target!(|text: &str| {
    if let Ok(span) = text.parse::<Span>() {
        assert_eq!(span.to_string().parse(), Ok(span), "{text:?} as {span}");
    }
    if let Ok(size) = text.parse::<ByteSize>() {
        assert_eq!(size.to_string().parse(), Ok(size), "{text:?} as {size}");
    }
});
