//! The parameters of a form (RFC 6749 §3.2, appendix B).
//!
//! Invariant: a parameter that is repeated is refused (RFC 6749 §3.2), `resource` and `audience` too, since a token
//! has one audience; unknown ones are ignored; one without a value counts as absent.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, StatusCode, header};

use super::fault::Fault;
use crate::net::listen::Request;

/// More parameters than any request has.
const MOST: usize = 64;

/// The parameters by name.
#[derive(Default)]
pub struct Form(BTreeMap<String, String>);

impl std::fmt::Debug for Form {
    // Values are tokens and assertions.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Form {
    /// Reads the body of a POST.
    pub(super) fn of(request: &Request) -> Result<Self, Fault> {
        if request.method != Method::POST {
            return Err(Fault::request("only POST").with_status(StatusCode::METHOD_NOT_ALLOWED));
        }
        if !is_form(&request.headers) {
            return Err(Fault::request("the content type must be application/x-www-form-urlencoded")
                .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        Self::parse(&request.body)
    }

    /// Reads a form. Public for the fuzzer.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Fault> {
        let body = std::str::from_utf8(body).map_err(|_| Fault::request("the body is not ASCII"))?;
        let mut form = BTreeMap::new();
        for (count, pair) in body.split('&').filter(|pair| !pair.is_empty()).enumerate() {
            if count == MOST {
                return Err(Fault::request("too many parameters"));
            }
            // Tokens make up most of a body, and need no decoding.
            let plain = !pair.bytes().any(|b| matches!(b, b'%' | b'+'));
            let (name, value) = match pair.split_once('=') {
                Some((name, value)) if plain => (name.into(), value.into()),
                _ => form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default(),
            };
            if value.contains('\u{fffd}') || name.contains('\u{fffd}') {
                return Err(Fault::request("a parameter is not UTF-8"));
            }
            if form.contains_key(&*name) {
                let name: String = name.chars().take(40).collect();
                return Err(Fault::request(format!("the parameter {name} is repeated")));
            }
            form.insert(name.into_owned(), value.into_owned());
        }
        form.retain(|_, value| !value.is_empty());
        Ok(Self(form))
    }

    /// A parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that must be there.
    pub(super) fn need(&self, name: &str) -> Result<&str, Fault> {
        self.get(name).ok_or_else(|| Fault::request(format!("the parameter {name} is missing")))
    }
}

/// Reads a form as the endpoints do; for the fuzzer.
#[must_use]
pub fn parse_form(body: &[u8]) -> Option<Form> {
    Form::parse(body).ok()
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_once_and_ignores_what_has_no_value() {
        let form = Form::parse(b"a=1&b=&c=x+y%21&d").unwrap();
        assert_eq!((form.get("a"), form.get("b"), form.get("c")), (Some("1"), None, Some("x y!")));
        assert_eq!(form.need("d").unwrap_err().description, "the parameter d is missing");
    }

    #[test]
    fn reads_as_the_library_does() {
        for body in [
            "",
            "&&a=1&",
            "a==b",
            "=v",
            "a",
            "a&b=%3D%26",
            "%61=1",
            "a+b=c+d",
            "a=b=c",
            "x=\u{e9}",
            "a=1&=2",
            "+=+",
        ] {
            let wanted: Vec<(String, String)> = form_urlencoded::parse(body.as_bytes())
                .into_owned()
                .filter(|(_, value)| !value.is_empty())
                .collect();
            let form = Form::parse(body.as_bytes()).unwrap();
            assert_eq!(form.0, wanted.into_iter().collect(), "{body}");
        }
    }

    #[test]
    fn refuses_repeats_and_floods() {
        for body in ["a=1&a=1", "scope=a&scope=", "resource=x&resource=y"] {
            let fault = Form::parse(body.as_bytes()).unwrap_err();
            assert!(fault.description.contains("repeated"), "{body}: {fault}");
        }
        let many: Vec<_> = (0..65).map(|i| format!("p{i}=1")).collect();
        assert!(Form::parse(many.join("&").as_bytes()).is_err());
        assert!(Form::parse(b"a=%ff").is_err());
        assert!(Form::parse(&[b'a', 0xff]).is_err());
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(
            format!("{:?}", Form::parse(b"client_assertion=secret").unwrap()),
            "{\"client_assertion\"}"
        );
    }
}
