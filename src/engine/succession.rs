//! Handing a running stack over: the supervisor gives way to one of another version of the program. Its containers
//! notice nothing: the shim holds them, and starts the next supervisor from the program that it was given.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use fs_err as fs;

use super::control::Failure;
use super::supervisor::{Supervisor, blocking, tracing_line};
use crate::sys::exe;

impl Supervisor {
    /// Prepares to give way to `program`; whether it does. An older one, or the same, is no reason to.
    pub(crate) async fn hand_over(self: &Rc<Self>, version: &str, program: OwnedFd) -> Result<bool, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("the stack could not be handed over: {e}"));
        if numbers(version) < numbers(env!("CARGO_PKG_VERSION")) {
            return Ok(false);
        }
        let (same, program) = blocking(move || (is_own(&program), program)).await?;
        if same.map_err(|e| failed(&e))? {
            return Ok(false);
        }
        let turn = self.turn.try_take();
        if self.clients() > 1 || turn.is_err() {
            return Err(failed(&"other commands are using its supervisor"));
        }
        if let Some(shim) = self.present_shim() {
            shim.succeed(program).await.map_err(|e| failed(&e))?;
        }
        tracing_line(&format!("handed over to another program of version {version}"));
        Ok(true)
    }

    /// Gives way.
    pub(crate) fn step_down(&self) {
        self.succeeded.set(true);
        self.wake();
    }
}

/// The numbers of a version, for comparison.
fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

/// Whether a program is the one that this process runs: the same file, or one with the same content.
fn is_own(program: &OwnedFd) -> io::Result<bool> {
    let (mut own, mut other) = (fs::File::open("/proc/self/exe")?, fs::File::open(exe::path_of(program))?);
    let (ours, theirs) = (own.metadata()?, other.metadata()?);
    if (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) {
        return Ok(true);
    }
    if ours.len() != theirs.len() {
        return Ok(false);
    }
    let mut pieces = [vec![0; 1 << 16], vec![0; 1 << 16]];
    let mut left = ours.len();
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 16);
        own.read_exact(&mut pieces[0][..length])?;
        other.read_exact(&mut pieces[1][..length])?;
        if pieces[0][..length] != pieces[1][..length] {
            return Ok(false);
        }
        left -= length as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("0.10.0") > numbers("0.9.3"));
        assert!(numbers("1.0") > numbers("0.9.3"));
        assert_eq!(numbers("1.2.3-dev"), numbers("1.2.3"));
    }

    #[test]
    fn a_copy_is_the_same_program_and_a_longer_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::copy("/proc/self/exe", &path).unwrap();
        let open = || OwnedFd::from(fs::File::open(&path).unwrap().into_file());
        assert!(is_own(&open()).unwrap());
        io::Write::write_all(&mut fs::OpenOptions::new().append(true).open(&path).unwrap(), b"x").unwrap();
        assert!(!is_own(&open()).unwrap());
    }
}
