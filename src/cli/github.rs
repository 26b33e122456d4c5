//! Workflow commands of GitHub Actions: lines of output that its log shows as annotations.

use std::path::{Path, PathBuf};

use crate::spec::{Diagnostic, Place, Severity};

/// `::error file=…,line=…,col=…::message` and a newline.
pub(super) fn annotation(diagnostic: &Diagnostic) -> String {
    let level = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let hint = diagnostic.hint.iter().map(|hint| format!("\n{hint}"));
    let message = escaped(&hint.fold(diagnostic.message.clone(), |text, hint| text + &hint));
    let place = diagnostic.places.first().map_or_else(String::new, properties);
    format!("::{level}{place}::{message}\n")
}

fn properties(place: &Place) -> String {
    let file = escaped(&in_workspace(&place.file).to_string_lossy()).replace(':', "%3A").replace(',', "%2C");
    format!(" file={file},line={},col={}", place.line, place.column)
}

/// A path as the repository knows it, where it lies in its working copy.
fn in_workspace(file: &str) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.into());
    let workspace = std::env::var_os("GITHUB_WORKSPACE").unwrap_or_default();
    absolute.strip_prefix(Path::new(&workspace)).map_or_else(|_| absolute.clone(), Path::to_owned)
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Kind;

    #[test]
    fn a_message_stays_one_command() {
        let diagnostic = Diagnostic::error(Kind::Value, "100% wrong").hint("do\nthis");
        let line = annotation(&diagnostic);
        assert!(line.starts_with("::error::100%25 wrong%0Ado"), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
        let place = Place {
            file: "/a:b,c".into(),
            line: 3,
            column: 7,
            width: 1,
            label: String::new(),
            text: String::new(),
            cut: 0,
        };
        let line = annotation(&Diagnostic::warning(Kind::Value, "odd").at(place));
        assert_eq!(line, "::warning file=/a%3Ab%2Cc,line=3,col=7::odd\n");
    }
}
