//! A value that must not be printed. Invariant: no Debug, Display or Serialize of a [`Secret`] shows its value, and
//! its memory is overwritten when it is dropped.

use std::fmt;

use zeroize::Zeroize;

/// A secret value: redacted in Debug, without Display and Serialize, wiped on drop.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value. Copies made before this call are not wiped.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Named so that every place where a secret leaves its wrapper can be searched for.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn debug_is_redacted_also_when_nested() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
        assert!(!format!("{:#?}", Some(vec![secret.clone()])).contains("hunter2"));
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn dropping_wipes_the_value() {
        struct Witness<'a>(&'a AtomicBool);
        impl Zeroize for Witness<'_> {
            fn zeroize(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let wiped = AtomicBool::new(false);
        drop(Secret::new(Witness(&wiped)));
        assert!(wiped.load(Ordering::SeqCst));
    }
}
