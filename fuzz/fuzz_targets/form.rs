//! Forms as they arrive at the endpoints.
#![no_main]

use agentid::serve::parse_form;
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 6] = ["grant_type", "client_assertion", "resource", "scope", "token", "a"];

fuzz_target!(|data: &[u8]| {
    let Some(form) = parse_form(data) else { return };
    assert!(str::from_utf8(data).is_ok(), "only text is a form");
    assert!(data.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).count() <= 64);
    for name in NAMES {
        let Some(value) = form.get(name) else { continue };
        assert!(!value.is_empty(), "without a value it is absent");
        // Said once more, it is refused, however that is spelt.
        let again = [data, b"&", name.as_bytes(), b"="].concat();
        assert!(parse_form(&again).is_none(), "{name} is repeated");
    }
});
