//! From what is asked for to what runs: look, plan, execute. Every command that changes a stack goes this way.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use tokio::task::JoinSet;

use super::control::{self, Action, Failure, Kind, Request};
use super::execute::Interrupted;
use super::intent::{Desired, up_options};
use super::reach::Reach;
use super::state::{self, Container, Status};
use super::supervisor::{Supervisor, tracing_line};
use crate::planner::{self, Plan, PlanOptions, Verb};

impl Supervisor {
    /// Makes what runs match the project.
    pub(crate) async fn up(self: &Rc<Self>, up: control::Up) -> Result<(), Failure> {
        let _turn = self.turn.take().await;
        self.finish_stops().await;
        let desired = Arc::new(Desired::from_up(&up));
        let options = up_options(&up);
        let plan = self.plan(&desired, &options)?;
        if plan.is_destructive() && !up.yes {
            let lines = planner::render(&self.project, &plan).into_iter().filter(|line| line.destructive);
            let lines: Vec<String> = lines.map(|line| format!("{}: {}", line.text, line.cause)).collect();
            let failure = Failure::new(format!("this would lose data:\n{}", lines.join("\n")));
            return Err(Failure { asks: true, ..failure.hint("agree to it with `-y`; `stack plan` shows all of it") });
        }
        self.tell_unchanged(&desired, &plan);
        self.reserve_for(&desired, &plan).await?;
        if !plan.is_empty() {
            self.remember(&desired).inspect_err(|_| self.reserved.borrow_mut().clear())?;
        }
        let deadline = up.wait_timeout.filter(|_| up.wait).map(Duration::from_secs);
        let executed = self.execute("up", &plan, &desired);
        let result = match deadline {
            None => executed.await,
            Some(limit) => match tokio::time::timeout(limit, executed).await {
                Ok(result) => result,
                Err(_) => Err(Failure::new(format!(
                    "the services are not ready after {} s: {}",
                    limit.as_secs(),
                    self.unready()
                ))
                .hint("look at `stack ps` and `stack logs`, or raise --wait-timeout")),
            },
        };
        self.reserved.borrow_mut().clear();
        result
    }

    /// Waits for the end of containers that are being stopped, by a command that was broken off or for a supervisor that
    /// died: they look as if they ran, and soon they don't.
    async fn finish_stops(self: &Rc<Self>) {
        let mut stops = JoinSet::new();
        for container in self.containers() {
            if container.state.stopped_by_user && matches!(container.state.status, Status::Running | Status::Paused) {
                let this = self.clone();
                stops.spawn_local(async move {
                    if let Err(failure) = this.stop_container(&container.record.id, None).await {
                        tracing_line(&failure.message);
                    }
                });
            }
        }
        while stops.join_next().await.is_some() {}
    }

    /// Brings up what a one-off container of `service` depends on, and its networks and volumes.
    pub(crate) async fn bring_up_for(
        self: &Rc<Self>,
        frames: &crate::sys::frame::AsyncFrames,
        up: &control::Up,
        service: &str,
    ) -> Result<(), Failure> {
        let mut events = self.subscribe();
        let mut up = up.clone();
        up.services =
            up.project.services.get(service).map(|s| s.depends_on.keys().cloned().collect()).unwrap_or_default();
        let desired = Arc::new(Desired::from_up(&up));
        if !up.services.is_empty() && !up.no_deps {
            self.up(up).await?;
        }
        self.ensure_resources(&desired, service).await?;
        while let Ok(event) = events.try_recv() {
            let _ = super::serve::reply_to(frames, &control::Reply::Event(event)).await;
        }
        Ok(())
    }

    async fn ensure_resources(self: &Rc<Self>, desired: &Arc<Desired>, service: &str) -> Result<(), Failure> {
        let Some(service) = desired.project.services.get(service) else { return Ok(()) };
        for key in service.networks.keys() {
            if let Some(network) = desired.project.networks.get(key).filter(|network| !network.external) {
                let found =
                    super::networks::find(&self.paths, &network.name).map_err(|e| Failure::new(e.to_string()))?;
                if found.is_none() {
                    self.create_network(key.clone(), network.clone()).await?;
                }
            }
        }
        for mount in &service.volumes {
            let Some((key, volume)) = mount.source.as_ref().and_then(|key| desired.project.volumes.get_key_value(key))
            else {
                continue;
            };
            if !volume.external {
                self.create_volume(desired, key)?;
            }
        }
        Ok(())
    }

    /// Stops and removes.
    pub(crate) async fn down(self: &Rc<Self>, down: &control::Down) -> Result<(), Failure> {
        self.turn.interrupt();
        let _turn = self.turn.take().await;
        let (desired, options) = self.down_intent(down)?;
        self.carry("down", desired, &options).await?;
        if !self.containers().is_empty() {
            return Ok(());
        }
        self.drop_estates()?;
        self.forget_desired()
    }

    /// Stops, restarts, signals, removes, freezes or thaws what exists.
    pub(crate) async fn change_existing(self: &Rc<Self>, request: &Request) -> Result<(), Failure> {
        if matches!(request, Request::Stop { .. }) {
            self.turn.interrupt();
        }
        // A signal is sent at once, whatever another command is doing.
        let _turn = match request {
            Request::Kill { .. } => None,
            _ => Some(self.turn.take().await),
        };
        match self.intent(request)? {
            Some((desired, options)) => self.carry(request.verb(), desired, &options).await,
            None => Ok(()),
        }
    }

    /// Starts what exists.
    pub(crate) async fn start_services(
        self: &Rc<Self>,
        services: &[String],
        wait: bool,
        wait_timeout: Option<u64>,
    ) -> Result<(), Failure> {
        let _turn = self.turn.take().await;
        self.finish_stops().await;
        let (desired, options) = self.verb(Verb::Start, services, None);
        self.carry("start", desired, &options).await?;
        if !wait {
            return Ok(());
        }
        let ids = self.ids_of(services);
        let ready = async {
            for id in &ids {
                self.wait_goal(id, planner::Goal::Ready).await?;
            }
            Ok(())
        };
        match wait_timeout {
            None => ready.await,
            Some(limit) => tokio::time::timeout(Duration::from_secs(limit), ready).await.unwrap_or_else(|_| {
                Err(Failure::new(format!("the services are not ready after {limit} s: {}", self.unready())))
            }),
        }
    }

    /// Waits for the end of services' containers; the last one's exit code.
    pub(crate) async fn wait_services(self: &Rc<Self>, services: &[String]) -> Result<i32, Failure> {
        let ids = self.ids_of(services);
        if ids.is_empty() {
            return Err(Failure::new(format!("no container to wait for: {}", services.join(", "))));
        }
        let mut code = 0;
        for id in ids {
            code = self.end_of(&id).await;
        }
        Ok(code)
    }

    fn ids_of(&self, services: &[String]) -> Vec<String> {
        let named = |container: &Container| {
            !container.record.oneoff && (services.is_empty() || services.contains(&container.record.service))
        };
        self.containers().into_iter().filter(named).map(|container| container.record.id.clone()).collect()
    }

    async fn carry(self: &Rc<Self>, verb: &str, desired: Desired, options: &PlanOptions) -> Result<(), Failure> {
        let plan = self.plan(&desired, options)?;
        self.execute(verb, &plan, &Arc::new(desired)).await
    }

    fn plan(&self, desired: &Desired, options: &PlanOptions) -> Result<Plan, Failure> {
        let observed = self.observe(desired, matches!(options.verb, Verb::Up(_)))?;
        let plan = planner::plan(&desired.project, &observed, options);
        for warning in &plan.warnings {
            self.report(Kind::Container, "", "", "", Action::Warning { message: warning.to_string() });
        }
        if plan.problems.is_empty() {
            return Ok(plan);
        }
        let problems: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
        Err(Failure::new(problems.join("\n")))
    }

    /// Says of containers that are as they should be that they run.
    fn tell_unchanged(&self, desired: &Desired, plan: &Plan) {
        let touched: BTreeSet<String> =
            plan.steps().iter().filter_map(|(_, step)| step.action.container().map(|c| c.name.clone())).collect();
        for container in self.containers() {
            let runs = container.state.status == state::Status::Running;
            let wanted = desired.project.services.contains_key(&container.record.service) && !container.record.oneoff;
            if runs && wanted && !touched.contains(&container.record.name) {
                self.tell(&container, Action::Running);
            }
        }
    }

    /// Before the plan changes anything: what its new containers bind must be there, and their host ports are held.
    async fn reserve_for(&self, desired: &Desired, plan: &Plan) -> Result<(), Failure> {
        // What a command that was interrupted held.
        self.reserved.borrow_mut().clear();
        let mut wanted = Vec::new();
        for (_, step) in plan.steps() {
            if let planner::Action::CreateContainer { service: key, name, .. } = &step.action
                && let Some(service) = desired.project.services.get(key)
            {
                super::volumes::check_sources(key, service)?;
                let reach = Reach::planned(&self.paths, &desired.project, service);
                wanted.push((name.clone(), key.clone(), service.ports.clone(), reach));
            }
        }
        self.reserve_ports(wanted).await
    }

    /// Writes down what shall be, for the time after a crash.
    fn remember(&self, desired: &Desired) -> Result<(), Failure> {
        let path = self.paths.desired(&self.project);
        let written = serde_json::to_vec(&desired.project).map_err(Into::into);
        let written = written.and_then(|bytes| crate::sys::file::write_atomic(&path, &bytes, false));
        written.map_err(|e| Failure::new(format!("the desired state could not be written: {e}")))
    }

    /// Nothing shall be any more.
    fn forget_desired(&self) -> Result<(), Failure> {
        match fs::remove_file(self.paths.desired(&self.project)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::new(e.to_string())),
            _ => Ok(()),
        }
    }

    /// Makes a volume of the project.
    pub(crate) fn create_volume(&self, desired: &Desired, key: &str) -> Result<(), Failure> {
        let Some(wanted) = desired.project.volumes.get(key) else { return Ok(()) };
        let name = planner::volume_name(&desired.project, key);
        let found = super::volumes::find(&self.paths, &name).map_err(|e| Failure::new(e.to_string()))?;
        if found.is_some_and(|volume| super::volumes::is_whole(&self.paths, &volume)) {
            return Ok(());
        }
        self.report(Kind::Volume, &name, "", "", Action::Creating);
        let volume = super::volumes::described(&desired.project, key, wanted);
        super::volumes::ensure(&self.paths, &volume)
            .map_err(|e| Failure::new(format!("volume {name} could not be made: {e}")))?;
        self.report(Kind::Volume, &name, "", "", Action::Created);
        Ok(())
    }

    /// The containers that are not ready, for a message.
    fn unready(&self) -> String {
        let mut waiting = Vec::new();
        for container in self.containers() {
            let state = &container.state;
            let health = match state.health {
                state::Health::Starting => " (health: starting)",
                state::Health::Unhealthy => " (unhealthy)",
                state::Health::None | state::Health::Healthy => "",
            };
            if !container.record.oneoff && (state.status != state::Status::Running || !health.is_empty()) {
                let wait = state.waits_for.as_ref().filter(|_| state.status == state::Status::Running);
                let wait = wait.map(|what| format!(" and waits for {what}")).unwrap_or_default();
                waiting.push(format!("{} is {}{health}{wait}", container.record.name, state.status));
            }
        }
        waiting.join(", ")
    }
}

impl From<Interrupted> for Failure {
    fn from(_: Interrupted) -> Self {
        Self::new("interrupted by another command on this stack").code(130)
    }
}
