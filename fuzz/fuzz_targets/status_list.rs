//! Status lists as others may serve them, and ours there and back.
#![no_main]

use agentid::crypto::{DecodedList, StatusBits};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;

/// Small, as are the lists below: what counts is how many inputs are tried.
const MAX_BYTES: usize = 1 << 14;

fn walk(lst: &str, bits: u8) {
    let Ok(list) = DecodedList::decode(lst, bits, MAX_BYTES) else { return };
    assert!(list.as_bytes().len() <= MAX_BYTES);
    let len = list.len() as u64;
    for index in (0..len).step_by(len as usize / 64 + 1).chain(len.checked_sub(1)) {
        let status = list.status(index).expect("an entry below the length");
        assert!(bits == 8 || status >> bits == 0);
    }
    for index in [len, len + 1, u64::MAX] {
        assert_eq!(list.status(index), None);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    // As the seeds begin with a digit, that is the width.
    let bits = first.wrapping_sub(b'0');
    if let Ok(text) = str::from_utf8(rest) {
        walk(text.trim_ascii_end(), bits);
    }
    walk(&URL_SAFE_NO_PAD.encode(rest), bits);

    let mut list = StatusBits::new(usize::from(first));
    for pair in rest.chunks_exact(2).take(64) {
        let at = usize::from(u16::from_le_bytes([pair[0], pair[1]]));
        list.set(at / 2 % 4096, at % 2 == 1).expect("far below the most");
    }
    let back = DecodedList::decode(&list.encode().expect("encoded"), 1, MAX_BYTES).expect("ours");
    assert_eq!(back.as_bytes(), list.as_bytes());
});
