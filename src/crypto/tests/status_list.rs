mod token;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use flate2::{Compression, write::ZlibEncoder};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::Write;

use super::*;

const MAX: usize = 1 << 20;
/// 11 of the 2^20 entries of the draft's vector of 1 bit; the others are 0.
const SET: [usize; 11] =
    [0, 1993, 25460, 159_495, 495_669, 554_353, 645_645, 723_232, 854_545, 934_534, 1_000_345];
const LST_1: &str = include_str!("vectors/status_list_1.lst").trim_ascii_end();
const LST_2: &str = include_str!("vectors/status_list_2.lst").trim_ascii_end();
const LST_4: &str = include_str!("vectors/status_list_4.lst").trim_ascii_end();
const LST_8: &str = include_str!("vectors/status_list_8.lst").trim_ascii_end();

fn decode(lst: &str, bits: u8) -> Result<DecodedList, StatusListError> {
    DecodedList::decode(lst, bits, MAX)
}

fn compressed(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bits_of(set: &[usize], len: usize) -> StatusBits {
    let mut bits = StatusBits::new(len);
    for index in set {
        bits.set(*index, true).unwrap();
    }
    bits
}

/// Bits without a pattern, half of them set.
fn noise(len: usize) -> StatusBits {
    let mut state = 1_u64;
    let mut bits = StatusBits::new(len);
    for index in 0..bits.len() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bits.set(index, state >> 63 == 1).unwrap();
    }
    bits
}

#[test]
fn the_short_vectors_of_the_draft_are_met() {
    let values = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1];
    let mut bits = StatusBits::new(16);
    for (index, value) in values.into_iter().enumerate() {
        bits.set(index, value == 1).unwrap();
    }
    assert_eq!(bits.as_bytes(), [0xb9, 0xa3]);
    assert_eq!(bits.encode().unwrap(), "eNrbuRgAAhcBXQ");
    let list = decode("eNrbuRgAAhcBXQ", 1).unwrap();
    assert_eq!((list.as_bytes(), list.len()), (&[0xb9, 0xa3][..], 16));
    assert_eq!((0..16).map(|i| list.status(i).unwrap()).collect::<Vec<_>>(), values);

    let list = decode("eNo76fITAAPfAgc", 2).unwrap();
    assert_eq!((list.as_bytes(), list.len()), (&[0xc9, 0x44, 0xf9][..], 12));
    let values: Vec<_> = (0..12).map(|i| list.status(i).unwrap()).collect();
    assert_eq!(values, [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]);
    for index in [12, 13, 1 << 32, u64::MAX] {
        assert_eq!(list.status(index), None, "{index}");
    }
}

#[test]
fn the_long_vectors_of_the_draft_are_met() {
    let two = [1, 2, 1, 3, 1, 1, 2, 1, 1, 2, 3];
    let at_four = [
        0, 1993, 35460, 459_495, 595_669, 754_353, 845_645, 923_232, 924_445, 934_534, 1_004_534, 1_000_345,
        1_030_203, 1_030_204, 1_030_205,
    ];
    let by_index = |indexes: &[usize], values: &[u8]| -> Vec<(usize, u8)> {
        indexes.iter().copied().zip(values.iter().copied()).collect()
    };
    let four: Vec<u8> = (1..=15).collect();
    // Of the 8-bit vector only what the draft's text names; its digest holds the rest.
    for (bits, lst, entries, hash) in [
        (
            1,
            LST_1,
            by_index(&SET, &[1; 11]),
            "f2529d5d7b48665f8be86037b271b92a9cc7690a42688193d3c97baf2a1e4794",
        ),
        (2, LST_2, by_index(&SET, &two), "89014d93753a4996780da9354a6ac298c4e4c571b9d7ef344c2aefdd494d898c"),
        (
            4,
            LST_4,
            by_index(&at_four, &four),
            "7624b511c7462ca2e77514c416b5528b043d4333b5e0741494a4e21009241edb",
        ),
        (
            8,
            LST_8,
            vec![(233_478, 0), (52_451, 1), (576_778, 2)],
            "15aae678f848a96df0efaaead24c5356ed249c713fa292b04fd99d61db566743",
        ),
    ] {
        let list = decode(lst, bits).unwrap();
        assert_eq!((list.bits(), list.len()), (bits, 1 << 20));
        let found: String =
            digest(&SHA256, list.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, hash);
        for (index, value) in &entries {
            assert_eq!(list.status(*index as u64), Some(*value), "{bits} bits at {index}");
        }
        let set = (0..1 << 20).filter(|index| list.status(*index) != Some(0)).count();
        assert_eq!(set, if bits == 8 { 255 } else { entries.len() });
    }
}

/// Compressors differ to the letter: what counts is what is decoded, and that it is about as short.
#[test]
fn the_long_vector_is_built() {
    let bits = bits_of(&SET, 1 << 20);
    assert_eq!(bits.as_bytes(), decode(LST_1, 1).unwrap().as_bytes());
    let lst = bits.encode().unwrap();
    assert_eq!(decode(&lst, 1).unwrap().as_bytes(), bits.as_bytes());
    assert!(lst.starts_with("eN") && lst.len() < LST_1.len() * 3 / 2, "{lst}");
    assert_eq!(bits.encode().unwrap(), lst);
}

#[test]
fn the_token_of_the_draft_is_verified() {
    let key = json!({"keys": [{
        "kty": "EC", "crv": "P-256", "kid": "12", "alg": "ES256", "use": "sig",
        "x": "I3HWm_0Ds1dPMI-IWmf4mBmH-YaeAVbPVu7vB27CxXo", "y": "6N_d5Elj9bs1htgV3okJKIdbHEpkgTmAluYKJemzn1M",
    }]});
    let keys = JwkSet::parse(&key.to_string()).unwrap().set;
    let token = include_str!("vectors/status_list.jwt").trim_ascii_end();
    let uri = "https://example.com/statuslists/1";
    let verified = verify_status_list(token, &keys, uri, 1_686_920_170, 0).unwrap();
    assert_eq!((verified.kid.as_str(), verified.algorithm), ("12", Algorithm::ES256));
    assert_eq!((verified.iat, verified.exp, verified.ttl), (1_686_920_170, Some(2_291_720_170), Some(43200)));
    assert_eq!(verified.list.as_bytes(), [0xb9, 0xa3]);
    let late = verify_status_list(token, &keys, uri, 2_291_720_170, 0).unwrap_err();
    assert_eq!(late, VerifyError::Exp { exp: 2_291_720_170, now: 2_291_720_170 }.into());
}

#[test]
fn bits_are_set_cleared_grown_and_bounded() {
    let mut bits = StatusBits::new(9);
    assert_eq!((bits.len(), bits.is_empty(), bits.get(15), bits.get(16)), (16, false, Some(false), None));
    bits.set(20, true).unwrap();
    assert_eq!(
        (bits.len(), bits.get(20), bits.get(19), bits.get(16)),
        (24, Some(true), Some(false), Some(false))
    );
    bits.set(20, false).unwrap();
    assert_eq!(bits.as_bytes(), [0, 0, 0]);
    bits.set(MAX_STATUS_ENTRIES - 1, true).unwrap();
    assert_eq!(bits.set(MAX_STATUS_ENTRIES, true), Err(StatusListError::Index(MAX_STATUS_ENTRIES)));
    assert_eq!(bits.set(usize::MAX, false), Err(StatusListError::Index(usize::MAX)));
    assert_eq!(StatusBits::new(usize::MAX).len(), MAX_STATUS_ENTRIES);
    assert_eq!(format!("{:?}", bits_of(&[3, 4], 8)), "StatusBits { len: 8, set: 2 }");
    let none = StatusBits::new(0);
    assert_eq!(decode(&none.encode().unwrap(), 1).unwrap().len(), 0);
}

#[test]
fn what_does_not_compress_is_encoded_whole() {
    let bits = noise(100_000);
    let lst = bits.encode().unwrap();
    assert!(lst.len() > bits.as_bytes().len());
    // What the stream says of its level (RFC 1950 §2.2): the default here, the highest for the vectors above.
    assert!(lst.starts_with("eJ"), "{lst}");
    assert_eq!(decode(&lst, 1).unwrap().as_bytes(), bits.as_bytes());
}

#[test]
fn any_compressor_is_read_and_only_the_known_widths() {
    for level in 0..=9 {
        let lst = URL_SAFE_NO_PAD.encode(compressed(&[0xb9, 0xa3], level));
        assert_eq!(decode(&lst, 1).unwrap().as_bytes(), [0xb9, 0xa3]);
    }
    for bits in [0, 3, 5, 6, 7, 9, 16, 255] {
        assert_eq!(decode("eNrbuRgAAhcBXQ", bits), Err(StatusListError::Bits(bits.into())));
    }
}

#[test]
fn a_bomb_is_not_read_to_its_end() {
    let bomb = URL_SAFE_NO_PAD.encode(compressed(&vec![0; 4 * MAX], 9));
    assert!(bomb.len() < 10_000);
    assert_eq!(decode(&bomb, 1), Err(StatusListError::TooLong(MAX)));
    // The bound itself is allowed.
    let exact = URL_SAFE_NO_PAD.encode(compressed(&[0; 5000], 9));
    assert_eq!(DecodedList::decode(&exact, 8, 5000).unwrap().len(), 5000);
    assert_eq!(DecodedList::decode(&exact, 8, 4999), Err(StatusListError::TooLong(4999)));
    assert_eq!(DecodedList::decode(&exact, 8, 0), Err(StatusListError::TooLong(0)));
}

#[test]
fn what_is_cut_short_damaged_or_followed_is_refused() {
    let whole = compressed(noise(1000).as_bytes(), 9);
    for cut in 0..whole.len() {
        let lst = URL_SAFE_NO_PAD.encode(&whole[..cut]);
        assert_eq!(decode(&lst, 1), Err(StatusListError::Zlib), "{cut}");
    }
    for more in [&[0][..], &whole] {
        let lst = URL_SAFE_NO_PAD.encode([&whole, more].concat());
        assert_eq!(decode(&lst, 1), Err(StatusListError::Trailing(more.len())));
    }
    let mut checksum = whole.clone();
    *checksum.last_mut().unwrap() ^= 1;
    assert_eq!(decode(&URL_SAFE_NO_PAD.encode(checksum), 1), Err(StatusListError::Zlib));
    // Raw DEFLATE and gzip are other formats.
    assert_eq!(decode(&URL_SAFE_NO_PAD.encode(&whole[2..whole.len() - 4]), 1), Err(StatusListError::Zlib));
    for text in ["eNrbuRgAAhcBXQ==", "eNrbuRgAAhcBXR", "eNrbu+gAAhcBXQ", "eNrbuRgA AhcBXQ", "e"] {
        assert_eq!(decode(text, 1), Err(StatusListError::Base64), "{text}");
    }
}

#[test]
fn a_reference_is_read_strictly() {
    let read = |status: Value| StatusRef::from_claims(json!({ "status": status }).as_object().unwrap());
    let uri = "https://agents.example.com/statuslists/1";
    let whole = read(json!({"status_list": {"idx": 90210, "uri": uri}, "other": 1})).unwrap().unwrap();
    assert_eq!(whole, StatusRef { uri: uri.to_owned(), index: 90210 });
    assert_eq!(StatusRef::from_claims(&serde_json::Map::new()), Ok(None));
    for status in [
        json!(null),
        json!([]),
        json!({}),
        json!({"status_list": null}),
        json!({"status_list": {"idx": 1}}),
        json!({"status_list": {"uri": uri}}),
        json!({"status_list": {"idx": -1, "uri": uri}}),
        json!({"status_list": {"idx": 1.0, "uri": uri}}),
        json!({"status_list": {"idx": "1", "uri": uri}}),
        json!({"status_list": {"idx": 1, "uri": ""}}),
        json!({"status_list": {"idx": 1, "uri": [uri]}}),
    ] {
        assert!(matches!(read(status.clone()), Err(StatusListError::Claim { .. })), "{status}");
    }
}

proptest! {
    #[test]
    fn a_list_round_trips(set in prop::collection::btree_set(0_usize..5000, 0..400), len in 0_usize..5000) {
        let bits = bits_of(&set.iter().copied().collect::<Vec<_>>(), len);
        let list = decode(&bits.encode().unwrap(), 1).unwrap();
        prop_assert_eq!(list.len(), bits.len());
        for index in 0..bits.len() {
            prop_assert_eq!(list.status(index as u64), Some(u8::from(set.contains(&index))));
            prop_assert_eq!(bits.get(index), Some(set.contains(&index)));
        }
        prop_assert_eq!(list.status(bits.len() as u64), None);
    }

    #[test]
    fn entries_of_each_width_round_trip(width in prop::sample::select(&[1_u8, 2, 4, 8][..]),
                                        values: Vec<u8>) {
        let values: Vec<u8> = values.into_iter().map(|value| value >> (8 - width)).collect();
        let per_byte = usize::from(8 / width);
        let pack = |entries: &[u8]| entries.iter().rev().fold(0_u16, |byte, entry| byte << width | u16::from(*entry));
        let packed: Vec<u8> = values.chunks(per_byte).map(|entries| u8::try_from(pack(entries)).unwrap()).collect();
        let list = decode(&URL_SAFE_NO_PAD.encode(compressed(&packed, 6)), width).unwrap();
        for (index, value) in values.iter().enumerate() {
            prop_assert_eq!(list.status(index as u64), Some(*value));
        }
    }

    #[test]
    fn damage_never_passes_for_another_list(at: prop::sample::Index, byte: u8) {
        let bits = bits_of(&[0, 19, 700, 9999], 1 << 14);
        let mut bytes = compressed(bits.as_bytes(), 9);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(list) = decode(&URL_SAFE_NO_PAD.encode(bytes), 1) {
            prop_assert_eq!(list.as_bytes(), bits.as_bytes());
        }
    }

    #[test]
    fn no_text_makes_it_panic(bytes: Vec<u8>, bits: u8) {
        let _ = decode(&URL_SAFE_NO_PAD.encode(&bytes), bits);
        let _ = decode(&URL_SAFE_NO_PAD.encode([&[0x78, 0xda][..], &bytes].concat()), 1);
    }
}
