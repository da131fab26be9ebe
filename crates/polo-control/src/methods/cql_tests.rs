use polo_nn::{Device, host, mlp::Activation};

use super::*;
use crate::methods::cal_ql::CalQl;

#[test]
fn importance_weights_leave_the_logarithm_of_how_many_were_drawn() {
    // The card's check: a critic that says c everywhere, and all actions uniform on [-1, 1].
    let values = [2.5f32; 62];
    let logs = [-std::f32::consts::LN_2; 60];
    let free = (f32::NEG_INFINITY, f32::INFINITY);
    let (found, slopes) = penalty(&values, Some(&logs), 30, 1.0, free);
    assert!((found - 60f32.ln()).abs() < 1e-5, "{found}");
    // Softmax weights at the sampled actions, minus one at the data's, over two rows.
    assert_eq!((slopes[0], slopes[31]), (-0.5, -0.5));
    assert!(slopes[1..31].iter().all(|slope| (slope - 0.5 / 30.0).abs() < 1e-7));
    // Without them the data's action takes part: log 31 of one row's values.
    let (found, slopes) = penalty(&values, None, 30, 1.0, free);
    assert!((found - 31f32.ln()).abs() < 1e-5, "{found}");
    assert!((slopes[0] + 0.5 * 30.0 / 31.0).abs() < 1e-6);
    // A sharp temperature takes the greatest.
    let (found, _) = penalty(&[1.0, 4.0, -3.0, 0.0], None, 3, 1e-3, free);
    assert!((found - 3.0).abs() < 1e-5, "{found}");
}

#[test]
fn differences_beyond_their_bounds_have_no_slope() {
    // Differences 1 + log(1 + e^-1), about 1.31, and one of about 9.
    let values = [0.0f32, 1.0, 0.0, 9.0];
    let (found, slopes) = penalty(&values, None, 1, 1.0, (-2.0, 5.0));
    let first = 1.0 + (1.0 + (-1f32).exp()).ln();
    assert!((found - 0.5 * (first + 5.0)).abs() < 1e-5, "{found}");
    assert!(slopes[1] > 0.3 && slopes[0] < -0.3);
    assert_eq!(slopes[2..], [0.0, 0.0]);
}

const ROWS: usize = 6;

fn spaces() -> (Space, Space) {
    (Space::symmetric(&[1.0; 2]), Space::Box { low: vec![-1.0, 0.0], high: vec![1.0, 4.0] })
}

fn batch() -> Batch {
    let numbers = |count: usize, name: &str| Seeds::new(5).normal(count, name, 0);
    Batch {
        observations: numbers(2 * ROWS, "o"),
        actions: numbers(2 * ROWS, "a").chunks(2).flat_map(|a| [a[0].tanh(), 2.0 + a[1].tanh()]).collect(),
        rewards: numbers(ROWS, "r"),
        next_observations: numbers(2 * ROWS, "n"),
        terminated: vec![0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        returns_to_go: numbers(ROWS, "g"),
    }
}

fn learner(settings: &Cql, calibrated: bool) -> CqlLearner {
    let (observations, actions) = spaces();
    let mut learner = CqlLearner::new(settings, calibrated, &observations, &actions, &Seeds::new(1)).unwrap();
    // A smooth critic, whose slopes can be checked, and last layers that say something.
    let smooth = Shape { activation: Activation::Tanh, ..learner.critic.mlp.shape().clone() };
    learner.critic = Network::new(smooth, "critic", &Seeds::new(7));
    for network in [&mut learner.actor, &mut learner.critic] {
        for parameter in
            network.parameters.iter_mut().filter(|parameter| parameter.name.contains(".1.weight"))
        {
            let dims = parameter.value.dims();
            let numbers = Seeds::new(9).normal(dims.iter().product(), &parameter.name, 0);
            let numbers = numbers.into_iter().map(|x| 0.5 * x).collect();
            parameter.value = host::tensor(numbers, dims, &Device::flex());
        }
    }
    learner.target = learner.critic.clone();
    learner
}

fn small() -> Cql {
    Cql { samples: 3, hidden: vec![16], critic_hidden: vec![16], ..Cql::default() }
}

/// Checks slopes of a loss against central differences, along a few random directions of all parameters at once.
#[track_caller]
fn check_slopes(
    learner: &mut CqlLearner,
    gradients: &Gradients,
    network: fn(&mut CqlLearner) -> &mut Network,
    loss: impl Fn(&CqlLearner) -> f64,
) {
    for direction in 0..6 {
        let seeds = Seeds::new(direction);
        let mut expected = 0.0;
        let mut ways = Vec::new();
        for (id, parameter) in network(learner).parameters.iter().enumerate() {
            let count = parameter.value.dims().iter().product();
            let way = seeds.normal(count, &parameter.name, 0);
            if let Some(gradient) = gradients.get(id) {
                let parts = host::numbers(gradient).into_iter().zip(&way);
                expected += parts.map(|(slope, way)| f64::from(slope * way)).sum::<f64>();
            }
            ways.push(way);
        }
        let mut at = |by: f32| {
            let before = network(learner).parameters.clone();
            for (parameter, way) in network(learner).parameters.iter_mut().zip(&ways) {
                let moved = host::numbers(&parameter.value).into_iter().zip(way).map(|(x, way)| x + by * way);
                parameter.value = host::tensor(moved.collect(), parameter.value.dims(), &Device::flex());
            }
            let found = loss(learner);
            network(learner).parameters = before;
            found
        };
        let found = (at(1e-3) - at(-1e-3)) / 2e-3;
        assert!(
            (found - expected).abs() < 1e-2 * (1.0 + expected.abs()),
            "{direction}: {found} is not {expected}"
        );
    }
}

#[track_caller]
fn check_critics(settings: &Cql, calibrated: bool) {
    let (batch, seeds) = (batch(), Seeds::new(2));
    let mut learner = learner(settings, calibrated);
    let Pulled { gradients, .. } = learner.pull_critics(&batch, 0, &seeds);
    check_slopes(
        &mut learner,
        &gradients,
        |learner| &mut learner.critic,
        |learner| learner.pull_critics(&batch, 0, &seeds).metrics.get("losses/critic_loss").unwrap(),
    );
}

#[test]
fn slopes_of_the_critics_loss() {
    check_critics(&small(), false);
    check_critics(&Cql { importance: false, softness: 0.7, ..small() }, false);
    check_critics(&Cql { gap: Some(0.8), max_target: true, entropy_in_target: true, ..small() }, false);
    check_critics(&Cql { least_difference: Some(2.0), most_difference: Some(4.0), ..small() }, false);
    check_critics(&Cql { orthogonal: false, ..small() }, true);
}

#[track_caller]
fn check_policy(settings: &Cql) {
    let (batch, seeds) = (batch(), Seeds::new(2));
    let mut learner = learner(settings, false);
    let Pulled { gradients, .. } = learner.pull_policy(&batch, 0, &seeds);
    assert!(host::numbers(gradients.get(learner.line).unwrap()).iter().all(|slope| *slope != 0.0));
    check_slopes(
        &mut learner,
        &gradients,
        |learner| &mut learner.actor,
        |learner| learner.pull_policy(&batch, 0, &seeds).metrics.get("losses/actor_loss").unwrap(),
    );
}

#[test]
fn slopes_of_the_policys_loss() {
    check_policy(&small());
    check_policy(&Cql { temperature: Some(0.2), imitation_steps: 1, ..small() });
}

#[test]
fn the_multiplier_grows_while_the_penalty_is_above_the_gap() {
    let (batch, seeds) = (batch(), Seeds::new(2));
    let after = |gap: f64| {
        let mut learner = learner(&Cql { gap: Some(gap), critic_rate: 1e-2, ..small() }, false);
        let pulled = learner.pull_critics(&batch, 0, &seeds);
        let [penalty, multiplier] =
            ["losses/penalty", "losses/multiplier"].map(|name| pulled.metrics.get(name).unwrap());
        // -alpha' alpha (P_1 + P_2 - 2 gap) / 2.
        let slope = -multiplier * 10.0 * (penalty - gap);
        assert!((f64::from(pulled.beside) - slope).abs() < 1e-3 * (1.0 + slope.abs()));
        off_policy::Learner::update(&mut learner, &batch, 0, &seeds);
        learner.log_multiplier.value()
    };
    assert!((after(-100.0) - 1.01).abs() < 1e-5);
    assert!((after(100.0) - 0.99).abs() < 1e-5);
    let mut learner = learner(&Cql { gap: Some(0.0), ..small() }, false);
    learner.log_multiplier = Scalar::new("log_multiplier", 20.0);
    let pulled = learner.pull_critics(&batch, 0, &seeds);
    assert_eq!((pulled.metrics.get("losses/multiplier"), pulled.beside), (Some(1e6), 0.0));
}

#[test]
fn what_is_learnt_beside_the_networks_moves_as_it_should() {
    let (batch, seeds) = (batch(), Seeds::new(2));
    let mut learner = learner(&Cql { policy_rate: 1e-2, ..small() }, false);
    let entropy = learner.pull_policy(&batch, 0, &seeds).metrics.get("losses/entropy").unwrap();
    let metrics = off_policy::Learner::update(&mut learner, &batch, 0, &seeds);
    assert_eq!(metrics.get("losses/temperature"), Some(1.0));
    // Entropy above minus two nats makes the temperature fall by one step of Adam.
    let expected = if entropy > -2.0 { -0.01 } else { 0.01 };
    assert!((learner.log_temperature.value() - expected).abs() < 1e-5);
    let fixed = Cql { temperature: Some(0.0), ..small() };
    let (observations, actions) = spaces();
    let mut fixed = CqlLearner::new(&fixed, false, &observations, &actions, &Seeds::new(1)).unwrap();
    off_policy::Learner::update(&mut fixed, &batch, 0, &seeds);
    assert_eq!((fixed.log_temperature.value(), fixed.temperature()), (0.0, 0.0));
}

#[test]
fn returns_to_go_matter_to_cal_ql_alone_and_in_the_data_alone() {
    let (logged, seeds) = (batch(), Seeds::new(2));
    let lived = Batch { returns_to_go: Vec::new(), ..logged.clone() };
    let generous = Batch { returns_to_go: vec![50.0; ROWS], ..logged.clone() };
    let pull =
        |calibrated, batch: &Batch| learner(&small(), calibrated).pull_critics(batch, 0, &seeds).metrics;
    let loss = |calibrated, batch: &Batch| pull(calibrated, batch).get("losses/critic_loss").unwrap();
    assert_eq!(loss(false, &logged), loss(false, &lived));
    assert_eq!(loss(true, &lived), loss(false, &lived));
    assert!(loss(true, &logged) > loss(false, &logged));
    let lifted = |batch: &Batch| pull(true, batch).get("losses/lifted").unwrap();
    assert_eq!((lifted(&lived), lifted(&generous)), (0.0, 1.0));
    let wishes = CalQl::default().wishes();
    assert_eq!(
        (wishes.returns_to_go, wishes.sparse, Cql::default().wishes().returns_to_go),
        (Some(0.99), false, None)
    );
}

#[test]
fn a_learner_comes_back_from_a_checkpoint() {
    let (batch, seeds) = (batch(), Seeds::new(2));
    let settings = Cql { gap: Some(1.0), ..small() };
    let mut own = learner(&settings, true);
    off_policy::Learner::update(&mut own, &batch, 0, &seeds);
    let mut tensors = Tensors::new();
    off_policy::Learner::save(&own, &mut tensors);
    let mut back = learner(&settings, true);
    off_policy::Learner::load(&mut back, &mut tensors).unwrap();
    let update = |learner: &mut CqlLearner| {
        let metrics: Vec<_> = off_policy::Learner::update(learner, &batch, 1, &seeds)
            .iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        (metrics, off_policy::Learner::explore(learner, &[0.1, 0.2], 3, 9, &seeds))
    };
    assert_eq!(update(&mut own), update(&mut back));
}

/// The action learnt from a bandit whose data ends at the best action, -0.5; beyond it less is earned, which nobody has
/// seen.
fn bandit(alpha: f64, calibrated: bool) -> f32 {
    let method = Cql {
        alpha,
        samples: 4,
        temperature: Some(0.02),
        policy_rate: 3e-3,
        critic_rate: 3e-3,
        batch: 64,
        hidden: vec![32],
        critic_hidden: vec![32, 32],
        ..Cql::default()
    };
    let (observations, actions) = (Space::symmetric(&[1.0]), Space::symmetric(&[1.0]));
    let mut learner = CqlLearner::new(&method, calibrated, &observations, &actions, &Seeds::new(3)).unwrap();
    let mut rng = Seeds::new(4).rng("bandit", 0);
    for update in 0..500 {
        let taken: Vec<f32> = (0..method.batch).map(|_| -0.5 - 0.5 * unit(&mut rng) as f32).collect();
        let rewards: Vec<f32> = taken.iter().map(|a| 2.0 - 2.0 * (a + 0.5).abs()).collect();
        let batch = Batch {
            observations: vec![0.0; method.batch],
            next_observations: vec![0.0; method.batch],
            terminated: vec![1.0; method.batch],
            returns_to_go: rewards.clone(),
            actions: taken,
            rewards,
        };
        off_policy::Learner::update(&mut learner, &batch, update, &Seeds::new(5));
    }
    match off_policy::Learner::policy(&learner, "bandit").act(&[0.0]) {
        Action::Continuous(action) => action[0],
        Action::Discrete(_) => unreachable!(),
    }
}

#[test]
fn the_penalty_keeps_the_policy_where_data_is() {
    let free = bandit(0.0, false);
    assert!(free > 0.8, "{free}");
    for calibrated in [false, true] {
        let found = bandit(1.0, calibrated);
        assert!((-0.9..-0.4).contains(&found), "{calibrated}: {found}");
    }
}
