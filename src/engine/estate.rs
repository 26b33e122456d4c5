//! Anonymous volumes between a container that is gone and the one that takes its place: what lies in them survives a
//! crash in between.

use std::collections::BTreeMap;
use std::io;

use super::control::Failure;
use super::state::Record;
use super::supervisor::Supervisor;
use super::volumes::{self, Volume};

/// Volumes by the place in the container where they were mounted.
pub(crate) type Estate = BTreeMap<String, String>;

/// The containers of one place in the project, one after the other.
fn place(service: &str, number: u32) -> String {
    format!("{service}/{number}")
}

impl Supervisor {
    /// Finds what earlier supervisors left between two containers.
    pub(super) fn find_estates(&self) -> io::Result<()> {
        for volume in volumes::list(&self.paths)?.into_iter().filter(|volume| volume.project == self.project) {
            if let Some((place, target)) = volume.heir {
                self.estates.borrow_mut().entry(place).or_default().insert(target, volume.name);
            }
        }
        Ok(())
    }

    /// Writes down that the anonymous volumes of a container are for the one that takes its place.
    pub(super) fn bequeath(&self, record: &Record) -> Result<(), Failure> {
        let place = place(&record.service, record.number);
        for mount in record.mounts.iter().filter(|mount| mount.anonymous) {
            self.set_heir(&mount.source, Some((place.clone(), mount.target.clone())))?;
            self.estates
                .borrow_mut()
                .entry(place.clone())
                .or_default()
                .insert(mount.target.clone(), mount.source.clone());
        }
        Ok(())
    }

    /// What waits for a container of this place.
    pub(super) fn estate(&self, service: &str, number: u32) -> Estate {
        self.estates.borrow().get(&place(service, number)).cloned().unwrap_or_default()
    }

    /// A container has taken over what waited for it; what it has no use for waits no longer either.
    pub(super) fn inherited(&self, record: &Record) -> Result<(), Failure> {
        let estate = self.estates.borrow_mut().remove(&place(&record.service, record.number));
        for name in estate.into_iter().flat_map(Estate::into_values) {
            self.set_heir(&name, None)?;
        }
        Ok(())
    }

    /// Removes what waits for containers that won't come.
    pub(super) fn drop_estates(&self) -> Result<(), Failure> {
        let estates = std::mem::take(&mut *self.estates.borrow_mut());
        for name in estates.into_values().flat_map(Estate::into_values) {
            let removed = volumes::remove(&self.paths, &name);
            removed.map_err(|e| Failure::new(format!("volume {name} could not be removed: {e}")))?;
        }
        Ok(())
    }

    fn set_heir(&self, name: &str, heir: Option<(String, String)>) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::new(format!("volume {name}: {e}"));
        match volumes::find(&self.paths, name).map_err(failed)? {
            Some(volume) => volumes::write(&self.paths, &Volume { heir, ..volume }).map_err(failed),
            None => Ok(()),
        }
    }
}
