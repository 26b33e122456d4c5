//! Looking at containers.

use super::Oci;
use super::error::Error;
use super::state::{self, Container, State};

impl Oci {
    /// The state of a container.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn state(&self, id: &str) -> Result<State, Error> {
        let container = Container::load(&self.root, id)?;
        Ok(container.state(container.status()))
    }

    /// The states of all containers, by name.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn list(&self) -> Result<Vec<State>, Error> {
        Ok(state::all(&self.root)?.iter().map(|container| container.state(container.status())).collect())
    }

    /// The processes of a container, as the host numbers them.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn processes(&self, id: &str) -> Result<Vec<i32>, Error> {
        let mut members = Container::load(&self.root, id)?.group()?.members();
        members.sort_unstable();
        Ok(members)
    }
}
