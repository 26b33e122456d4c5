//! Changing the limits of a container.

use super::config::parse;
use super::error::Error;
use super::resources::Resources;
use super::state::{Container, Status};
use super::{Oci, group};

impl Oci {
    /// Changes limits, given as the JSON of `linux.resources`. Gives what can't be held.
    ///
    /// # Errors
    /// When the container has ended, or the kernel refuses a limit.
    pub fn update(&self, id: &str, resources: &str) -> Result<Vec<String>, Error> {
        let container = Container::load(&self.root, id)?;
        let status = container.status();
        if matches!(status, Status::Stopped | Status::Creating) {
            return Err(Error::State { what: "update", id: id.to_owned(), status });
        }
        let resources: Resources = parse(resources).map_err(|e| Error::Config(format!("resources: {e}")))?;
        let group = container.group()?;
        let losses = group::limit(&group, &resources)?;
        group::allow_devices(&group, &resources.devices)?;
        Ok(losses)
    }
}
