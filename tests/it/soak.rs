//! Long runs, left out of `make test`: `make soak`.

use std::time::Instant;

use crate::sandbox::Sandbox;

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
fn two_hundred_times_up_and_down() {
    let sandbox = Sandbox::with(THREE);
    let begin = Instant::now();
    for _ in 0..200 {
        sandbox.stack("up -d").ok();
        assert_eq!(sandbox.ps().len(), 3);
        sandbox.stack("down -v").ok();
        assert_eq!(sandbox.left(), Vec::<String>::new());
    }
    println!("200 times up and down took {:.1} s", begin.elapsed().as_secs_f64());
}
