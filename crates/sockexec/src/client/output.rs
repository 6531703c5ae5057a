//! A program's output, shown to people.

use std::fmt;

use super::Output;

/// Shows the bytes as text if they are text, as the standard library does: a list of numbers helps nobody in
/// a failed test.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("status", &self.status)
            .field("stdout", &Bytes(&self.stdout))
            .field("stderr", &Bytes(&self.stderr))
            .field("usage", &self.usage)
            .finish()
    }
}

struct Bytes<'a>(&'a [u8]);

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match str::from_utf8(self.0) {
            Ok(text) => text.fmt(f),
            Err(_) => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_text() {
        let output = Output { stdout: b"a\nb".to_vec(), stderr: b"\xff".to_vec(), ..Output::default() };
        let shown = format!("{output:?}");
        assert!(shown.contains(r#"stdout: "a\nb", stderr: [255], usage: None"#), "{shown}");
    }
}
