//! Messages in the file that an engine reads them from.

use std::io::Write as _;

use jiff::Timestamp;
use serde_json::json;

use super::args::{LogFormat, Oci};
use crate::cli::error::Error;
use crate::cli::ui::Ui;

/// Where messages go beside standard error.
pub(super) struct Log<'a> {
    oci: &'a Oci,
}

impl<'a> Log<'a> {
    pub(super) fn new(oci: &'a Oci) -> Self {
        Self { oci }
    }

    /// An error, which standard error gets at the end.
    pub(super) fn error(&self, message: &str) {
        self.write("error", message);
    }

    /// Warnings: to the file if there is one, else to standard error.
    pub(super) fn warn_all(&self, messages: &[String]) -> Result<(), Error> {
        for message in messages {
            if self.oci.log.is_none() {
                Ui::new(None, None).warn(message)?;
            } else if self.oci.log_level.as_deref() != Some("error") {
                self.write("warning", message);
            }
        }
        Ok(())
    }

    /// What only `--debug` asks for.
    pub(super) fn debug(&self, message: &str) -> Result<(), Error> {
        if self.oci.debug && self.oci.log.is_none() {
            writeln!(Ui::new(None, None).err(), "debug: {message}")?;
        } else if self.oci.debug {
            self.write("debug", message);
        }
        Ok(())
    }

    fn write(&self, level: &str, message: &str) {
        let Some(file) = &self.oci.log else { return };
        let time = Timestamp::now().to_string();
        let line = match self.oci.log_format {
            LogFormat::Json => json!({ "level": level, "msg": message, "time": time }).to_string(),
            LogFormat::Text => format!("time={time:?} level={level} msg={message:?}"),
        };
        // Who can't be told by file is told by standard error.
        let opened = fs_err::OpenOptions::new().create(true).append(true).open(file);
        let _ = opened.and_then(|mut file| writeln!(file, "{line}"));
    }
}
