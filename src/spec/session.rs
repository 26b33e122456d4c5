//! What one load carries along: the loader, the files read, the complaints so far.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Diagnostics, Kind, Severity};
use super::limits;
use super::load::Options;
use super::loader::Loader;
use super::source::{Sources, Span};

/// State of one load.
pub(crate) struct Session<'a> {
    pub(crate) loader: &'a dyn Loader,
    pub(crate) options: Options,
    pub(crate) sources: Sources,
    /// `HOME` of the caller, for `~`.
    pub(crate) home: Option<PathBuf>,
    /// Files pulled in by `include` and `extends`.
    pub(crate) pulled: usize,
    /// Errors that hold for starting the stack, not for printing it.
    pub(crate) refusals: Vec<Diagnostic>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(loader: &'a dyn Loader, options: Options, home: Option<PathBuf>) -> Self {
        let sources = Sources::default();
        Self {
            loader,
            options,
            sources,
            home,
            pulled: 0,
            refusals: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Reports `diagnostic`. The same complaint about the same place counts once.
    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        let (list, most) = match diagnostic.severity {
            Severity::Error => (&mut self.errors, limits::ERRORS),
            Severity::Warning => (&mut self.warnings, limits::WARNINGS),
        };
        if list.len() < most && !list.contains(&diagnostic) {
            list.push(diagnostic);
        }
    }

    /// An error about `span`, not reported yet.
    pub(crate) fn error_at(&self, kind: Kind, span: Span, message: impl AsRef<str>) -> Diagnostic {
        Diagnostic::error(kind, message).at(self.sources.place(span, ""))
    }

    /// A warning about `span`, not reported yet.
    pub(crate) fn warning_at(&self, kind: Kind, span: Span, message: impl AsRef<str>) -> Diagnostic {
        Diagnostic::warning(kind, message).at(self.sources.place(span, ""))
    }

    /// Reports an error about `span`.
    pub(crate) fn error(&mut self, kind: Kind, span: Span, message: impl AsRef<str>) {
        let diagnostic = self.error_at(kind, span, message);
        self.report(diagnostic);
    }

    /// Reports an error about `span` with the remedy.
    pub(crate) fn error_hint(&mut self, kind: Kind, span: Span, message: impl AsRef<str>, hint: impl AsRef<str>) {
        let diagnostic = self.error_at(kind, span, message).hint(hint);
        self.report(diagnostic);
    }

    /// Keeps the stack from being started because of what stands at `span`.
    pub(crate) fn refuse(&mut self, kind: Kind, span: Span, message: &str, hint: &str) {
        self.refusal(self.error_at(kind, span, message).hint(hint));
    }

    /// Keeps the stack from being started.
    pub(crate) fn refusal(&mut self, diagnostic: Diagnostic) {
        if self.refusals.len() < limits::ERRORS && !self.refusals.contains(&diagnostic) {
            self.refusals.push(diagnostic);
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The warnings, if there were no errors; else everything.
    pub(crate) fn finish(self) -> Result<Vec<Diagnostic>, Diagnostics> {
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        let mut all = self.errors;
        all.extend(self.warnings);
        Err(Diagnostics(all))
    }

    /// Reads a text file and registers it; `why` says what wanted it (`stack file`, `env_file of service web`).
    pub(crate) fn read(&mut self, path: &Path, limit: u64, why: &str, from: Option<Span>) -> Option<(u32, Arc<str>)> {
        match self.try_read(path, limit, why) {
            Ok(read) => Some(read),
            Err(mut diagnostic) => {
                diagnostic.places.extend(from.and_then(|span| self.sources.place(span, "named here")));
                self.report(*diagnostic);
                None
            }
        }
    }

    fn try_read(&mut self, path: &Path, limit: u64, why: &str) -> Result<(u32, Arc<str>), Box<Diagnostic>> {
        let shown = path.display();
        let fail = |message: String| Box::new(Diagnostic::error(Kind::File, message));
        if ["/proc", "/sys", "/dev"].iter().any(|top| path.starts_with(top)) {
            let message = format!("{why} {shown} is no ordinary file");
            return Err(Box::new(
                Diagnostic::error(Kind::File, message).hint("files of procfs, sysfs and /dev are not read"),
            ));
        }
        let bytes = self.loader.read(path, limit).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => fail(format!("{why} {shown}: no such file")),
            io::ErrorKind::FileTooLarge => {
                Box::new(Diagnostic::error(Kind::Limit, format!("{why} {shown} is larger than {} KiB", limit >> 10)))
            }
            _ => fail(format!("{why} {shown} cannot be read: {error}")),
        })?;
        if bytes.len() as u64 > limit {
            let message = format!("{why} {shown} is larger than {} KiB", limit >> 10);
            return Err(Box::new(Diagnostic::error(Kind::Limit, message)));
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
            let encoding = if utf16 { "is UTF-16" } else { "is not valid UTF-8" };
            let message = format!("{why} {shown} {encoding} (byte {})", error.valid_up_to());
            Box::new(Diagnostic::error(Kind::Syntax, message).hint("save the file as UTF-8"))
        })?;
        let text: Arc<str> = text.into();
        Ok((self.sources.add(path.to_owned(), text.clone()), text))
    }

    /// `path` made absolute against `base` and cleaned of `.` and `..`; `~` is the caller's home.
    pub(crate) fn absolute(&self, base: &Path, path: &str) -> PathBuf {
        let expanded = match (path.strip_prefix('~'), &self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                home.join(rest.trim_start_matches('/'))
            }
            _ => PathBuf::from(path),
        };
        clean(&base.join(expanded))
    }
}

/// `path` without `.`, `..` and doubled slashes, decided by text alone.
pub(crate) fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if out.file_name().is_some() => {
                out.pop();
            }
            Component::ParentDir if out.has_root() => {}
            other => out.push(other),
        }
    }
    if out.as_os_str().is_empty() { PathBuf::from(".") } else { out }
}
