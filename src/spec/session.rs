//! What one load carries along: the loader, the files read, the complaints so far.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Diagnostics, Kind, Severity};
use super::limits;
use super::load::Options;
use super::loader::Loader;
use super::origin::{Layer, Set};
use super::source::{Sources, Span};

/// What a whole load may use up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Budget {
    /// Bytes of files.
    Read,
    /// Nodes of trees.
    Nodes,
    /// Bytes made by interpolation.
    Interpolated,
}

/// State of one load.
pub(crate) struct Session<'a> {
    pub(crate) loader: &'a dyn Loader,
    pub(crate) options: Options,
    pub(crate) sources: Sources,
    /// `HOME` of the caller, for `~`.
    pub(crate) home: Option<PathBuf>,
    /// Files pulled in by `include` and `extends`.
    pub(crate) pulled: usize,
    /// The `.env` files behind the variables, for messages.
    pub(crate) env_files: Vec<PathBuf>,
    /// Whether the caller came through sudo, which drops variables.
    pub(crate) sudo: bool,
    /// Where variables are set, those of included projects too.
    pub(crate) set: BTreeMap<String, Set>,
    /// With [`Options::explain`]: the documents, in the order in which they were laid over each other.
    pub(crate) layers: Vec<Layer>,
    /// With [`Options::explain`]: entries of `environment` and `labels` that come from a file, by service and name.
    pub(crate) filled: BTreeMap<(String, String), Span>,
    /// Bytes read, nodes held and bytes made by interpolation so far.
    spent: [u64; 3],
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
            env_files: Vec::new(),
            sudo: false,
            set: BTreeMap::new(),
            layers: Vec::new(),
            filled: BTreeMap::new(),
            spent: [0; 3],
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

    /// Counts `amount` against a budget of the whole load. Beyond it the complaint is made once, and `false` returned.
    pub(crate) fn spend(&mut self, budget: Budget, amount: usize, span: Span) -> bool {
        let (most, what) = match budget {
            Budget::Read => (limits::ALL_BYTES, "all files together are larger than 32 MiB"),
            Budget::Nodes => (limits::ALL_NODES as u64, "more than 500000 values in all files together"),
            Budget::Interpolated => (limits::INTERPOLATED_BYTES as u64, "interpolation makes more than 16 MiB of text"),
        };
        let spent = &mut self.spent[budget as usize];
        let before = *spent;
        *spent = spent.saturating_add(amount as u64);
        let within = *spent <= most;
        if !within && before <= most {
            self.error_hint(Kind::Limit, span, what, "`stack limits` lists all limits");
        }
        within
    }

    /// What to do about a variable that is not set.
    pub(crate) fn unset_hint(&self, name: &str) -> String {
        let read: Vec<String> = self.env_files.iter().map(|file| file.display().to_string()).collect();
        let files =
            if read.is_empty() { "no .env file was found".to_owned() } else { format!("read: {}", read.join(", ")) };
        let sudo = if self.sudo { "; sudo drops variables, `sudo -E` keeps them" } else { "" };
        format!("set it, or give a default: `${{{name}:-value}}` ({files}{sudo})")
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
            Ok((number, text)) => {
                let span = Span { file: number, line: 1, column: 1, width: 1 };
                self.spend(Budget::Read, text.len(), from.unwrap_or(span)).then_some((number, text))
            }
            Err(mut diagnostic) => {
                diagnostic.places.extend(from.and_then(|span| self.sources.place(span, "named here")));
                if diagnostic.hint.is_none() && diagnostic.message.ends_with("no such file") {
                    let optional = why.starts_with("env_file");
                    let hint = if optional { "; if it may be missing: `{ path: …, required: false }`" } else { "" };
                    diagnostic.hint = Some(format!("create it, or correct the path{hint}"));
                }
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
