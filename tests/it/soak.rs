//! Long runs, left out of `make test`: `make soak`.

use std::time::Instant;

use crate::sandbox::{Sandbox, kill_hard};

const THREE: &str = r#"
x-service: &service
  image: stack/host
  init: true
  command: ["sleep", "1000"]
services:
  a: { <<: *service, ports: ["18080:80"] }
  b: { <<: *service, depends_on: [a], volumes: ["data:/data"] }
  c: { <<: *service, depends_on: [b] }
volumes: { data: {} }
"#;

#[test]
#[ignore = "long: `make soak`"]
fn a_hundred_times_up_and_down() {
    let sandbox = Sandbox::with(THREE);
    let begin = Instant::now();
    for _ in 0..100 {
        sandbox.stack("up -d").ok();
        assert_eq!(sandbox.ps().len(), 3);
        sandbox.stack("down -v").ok();
    }
    println!("100 times up and down took {:.1} s", begin.elapsed().as_secs_f64());
}

#[test]
#[ignore = "long: `make soak`"]
fn fifty_deaths_of_supervisor_and_shim_in_turn() {
    let sandbox = Sandbox::with(THREE);
    sandbox.stack("up -d").ok();
    let before = sandbox.ids("a");
    for round in 0..50 {
        let word = if round % 2 == 0 { "__supervisor" } else { "__shim" };
        sandbox.processes(word).into_iter().for_each(kill_hard);
        sandbox.stack("up -d").ok();
        assert_eq!(sandbox.ids("a"), before, "round {round}");
    }
}
