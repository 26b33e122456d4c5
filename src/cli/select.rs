//! Picking containers by service, number and state.

use super::error::Error;
use super::project::Target;
use crate::engine::state::{Container, Status};

/// The containers of `services` (all if empty), one-off ones left out.
pub(crate) fn of_services<'a>(
    containers: &'a [Container],
    services: &'a [String],
) -> impl Iterator<Item = &'a Container> {
    containers.iter().filter(move |container| {
        !container.record.oneoff && (services.is_empty() || services.contains(&container.record.service))
    })
}

/// The running container of `service` with that number, by default the lowest.
pub(crate) fn running<'a>(
    target: &Target,
    containers: &'a [Container],
    service: &str,
    index: Option<u32>,
) -> Result<&'a Container, Error> {
    target.check_services(&[service.to_owned()], containers)?;
    let mut found: Vec<&Container> =
        containers.iter().filter(|container| container.record.service == service && !container.record.oneoff).collect();
    found.sort_by_key(|container| container.record.number);
    let container = match index {
        Some(number) => found.into_iter().find(|container| container.record.number == number),
        None => found.into_iter().min_by_key(|container| !is_up(container)),
    };
    match container {
        Some(container) if is_up(container) => Ok(container),
        Some(container) => Err(Error::new(format!(
            "container `{}` of service `{service}` is not running (it is {})",
            container.record.name, container.state.status
        ))
        .hint(format!("start it with `stack start {service}`"))),
        None => Err(match index {
            Some(number) => Error::new(format!("service `{service}` has no container with index {number}")),
            None => Error::new(format!("service `{service}` is not running"))
                .hint(format!("start it with `stack up -d {service}`")),
        }),
    }
}

/// Whether a process runs in it.
pub(crate) fn is_up(container: &Container) -> bool {
    matches!(container.state.status, Status::Running | Status::Paused)
}
