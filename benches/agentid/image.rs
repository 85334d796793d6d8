//! What the image weighs.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::report::Report;

/// The archive of `make image`: what a node pulls.
pub fn size(report: &mut Report) {
    if !report.wants(&["image_bytes"]) {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/image.sh");
    // Its progress, and what it is unpacked, are told by itself.
    let output = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "make image failed");
    let archive = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let bytes = std::fs::metadata(&archive).unwrap_or_else(|e| panic!("{archive}: {e}")).len();
    #[allow(clippy::cast_precision_loss)]
    report.add("image_bytes", bytes as f64, format!("the archive of make image, {}", std::env::consts::ARCH));
}
