//! polo/PointMaze-v0: a ball is pushed through a U of corridors to a goal at its far end, and nothing is earned before.
//!
//! ```text
//! # # # # #
//! # G . . #     Cells are 1 m wide. The ball, a disc of radius 0.1 m, starts at rest at a random place of
//! # # # . #     any free cell but G's. Rows are counted downwards: y grows downwards.
//! # . . . #
//! # # # # #
//! ```
//!
//! Taken: a push in \[-1, 1\]² (clipped). In a step of 0.1 s the velocity becomes `0.9 velocity + 0.1 · 2 · push`, in
//! m/s, so that it stays below 2 m/s a side; then the ball moves along x, then along y, and a wall stops that part of the
//! velocity. Shown: `[x, y, velocity x, velocity y, goal x - x, goal y - y]`. Coming within 0.3 m of the middle of the
//! goal's cell earns 1 and is the end; all else earns 0, so that the return is 1 for success and 0 for failure. An
//! episode has 300 steps; uniformly random pushes succeed in about one of seven.

use polo_run::{Problem, Result};
use serde::{Deserialize, Serialize};

use crate::{
    Action, Dynamics, NumpyRandom, Space,
    film::{ARM, GOAL, GROUND, MARK, Picture},
};

/// A maze with one goal.
#[derive(Clone, Debug)]
pub struct PointMaze {
    /// Rows of cells; true is a wall.
    walls: Vec<Vec<bool>>,
    starts: Vec<[usize; 2]>,
    goal: [f64; 2],
}

/// The ball at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointMazeState {
    /// Its middle, from the upper left corner of the maze \[m\].
    pub place: [f64; 2],
    /// \[m/s\].
    pub velocity: [f64; 2],
}

const RADIUS: f64 = 0.1;
const TIME_STEP: f64 = 0.1;
const DRAG: f64 = 0.1;
const MAX_SPEED: f64 = 2.0;
const REACH: f64 = 0.3;

impl Default for PointMaze {
    /// The maze of polo/PointMaze-v0.
    fn default() -> Self {
        Self {
            walls: ["#####", "#...#", "###.#", "#...#", "#####"]
                .map(|row| row.bytes().map(|cell| cell == b'#').collect())
                .into(),
            starts: vec![[2, 1], [3, 1], [3, 2], [1, 3], [2, 3], [3, 3]],
            goal: [1.5, 1.5],
        }
    }
}

impl PointMaze {
    /// The maze that `map` draws, a line per row of cells: `#` a wall, `G` the goal, `S` a cell to start in, `.` a free
    /// cell. Without any `S` all free cells but the goal are starts. What lies outside the map is a wall.
    ///
    /// # Errors
    /// Another letter, no goal or several, nowhere to start.
    pub fn from_map(map: &str) -> Result<Self> {
        let wrong = |what: String| {
            Problem::input(format!("the map of the maze {what}"))
                .hint("draw it with `#` walls, `.` free cells, `S` starts and one `G` goal, a line per row")
        };
        let (mut walls, mut free, mut starts, mut goals) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (row, line) in map.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
            for (column, letter) in line.chars().enumerate() {
                match letter {
                    '#' => {}
                    '.' => free.push([column, row]),
                    'S' => starts.push([column, row]),
                    'G' => goals.push([column, row]),
                    other => return Err(wrong(format!("has the letter `{other}`"))),
                }
            }
            walls.push(line.chars().map(|letter| letter == '#').collect());
        }
        let [goal] = goals[..] else {
            return Err(wrong(format!("has {} goals", goals.len())));
        };
        let starts = if starts.is_empty() { free } else { starts };
        if starts.is_empty() {
            return Err(wrong("has nowhere to start".to_owned()));
        }
        Ok(Self { walls, starts, goal: goal.map(|cell| cell as f64 + 0.5) })
    }

    /// The middle of the goal \[m\].
    pub fn goal(&self) -> [f64; 2] {
        self.goal
    }

    fn is_wall(&self, [column, row]: [f64; 2]) -> bool {
        let inside = column >= 0.0 && row >= 0.0;
        !inside
            || (self.walls.get(row as usize))
                .and_then(|cells| cells.get(column as usize))
                .copied()
                .unwrap_or(true)
    }

    /// Moves the ball along one axis until a wall; a step is shorter than the ball's radius and a cell together. The ball
    /// collides as the square around it.
    fn slide(&self, state: &mut PointMazeState, axis: usize) {
        let velocity = state.velocity[axis];
        let mut place = state.place;
        place[axis] += velocity * TIME_STEP;
        let side = RADIUS.copysign(velocity);
        let blocked = [-RADIUS, RADIUS].into_iter().any(|across| {
            let mut edge = place;
            edge[axis] += side;
            edge[1 - axis] += across;
            self.is_wall(edge)
        });
        if blocked {
            // Touching the wall from the side it came from, a hair apart so that the next step along the wall is free.
            let wall = (place[axis] + side).floor() + if velocity > 0.0 { 0.0 } else { 1.0 };
            place[axis] = wall - side - 1e-6_f64.copysign(velocity);
            state.velocity[axis] = 0.0;
        }
        state.place = place;
    }
}

impl Dynamics for PointMaze {
    type State = PointMazeState;

    fn observation_space(&self) -> Space {
        let height = self.walls.len() as f32;
        let width = self.walls.iter().map(Vec::len).max().unwrap_or(0) as f32;
        let speed = MAX_SPEED as f32;
        Space::Box {
            low: vec![0.0, 0.0, -speed, -speed, -width, -height],
            high: vec![width, height, speed, speed, width, height],
        }
    }

    fn action_space(&self) -> Space {
        Space::symmetric(&[1.0, 1.0])
    }

    fn begin(&self, random: &mut NumpyRandom) -> PointMazeState {
        let cell = self.starts[random.below(self.starts.len() as u64) as usize];
        let place = cell.map(|cell| cell as f64 + random.uniform(0.25, 0.75));
        PointMazeState { place, velocity: [0.0; 2] }
    }

    fn observe(&self, PointMazeState { place, velocity }: &PointMazeState) -> Vec<f32> {
        let [x, y] = *place;
        [x, y, velocity[0], velocity[1], self.goal[0] - x, self.goal[1] - y]
            .map(|value| value as f32)
            .to_vec()
    }

    fn advance(
        &self,
        state: &mut PointMazeState,
        action: &Action,
        _: &mut NumpyRandom,
    ) -> Result<(f64, bool)> {
        for (axis, &push) in action.values()?.iter().enumerate() {
            let push = f64::from(push.clamp(-1.0, 1.0));
            state.velocity[axis] = (1.0 - DRAG) * state.velocity[axis] + DRAG * MAX_SPEED * push;
            self.slide(state, axis);
        }
        let [x, y] = [0, 1].map(|axis| state.place[axis] - self.goal[axis]);
        let there = x.hypot(y) < REACH;
        Ok((f64::from(u8::from(there)), there))
    }

    fn draw(&self, state: &PointMazeState) -> Option<Picture> {
        let width = self.walls.iter().map(Vec::len).max().unwrap_or(0) as f64;
        // Rows are counted downwards.
        let [ball, goal] = [state.place, self.goal].map(|[x, y]| [x, -y]);
        let mut picture = Picture::new([0.0, -(self.walls.len() as f64)], [width, 0.0], TIME_STEP / 2.0);
        for (y, x) in (self.walls.iter().enumerate())
            .flat_map(|(y, row)| row.iter().enumerate().map(move |(x, &wall)| (y, x, wall)))
            .filter_map(|(y, x, wall)| wall.then_some((y as f64, x as f64)))
        {
            picture = picture.rectangle(GROUND, [x, -y - 1.0], [x + 1.0, -y]);
        }
        Some(picture.disc(MARK, goal, REACH).disc(GOAL, goal, RADIUS).disc(ARM, ball, RADIUS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, Simulated, make};

    fn push(maze: &mut impl Environment, x: f32, y: f32) -> crate::Step {
        maze.step(&Action::Continuous(vec![x, y])).unwrap()
    }

    #[test]
    fn the_way_through_the_u_earns_one() {
        let mut maze = make("polo/PointMaze-v0").unwrap();
        for seed in 0..20 {
            let mut seen = maze.reset(Some(seed)).unwrap();
            let mut earned = Vec::new();
            loop {
                // Right along the lower arm, up, left along the upper arm.
                let (x, y) = (seen[0], seen[1]);
                let to = match () {
                    () if y < 2.0 => (-1.0, (1.5 - y) * 4.0),
                    () if x > 3.2 => ((3.5 - x) * 4.0, -1.0),
                    () => (1.0, (3.5 - y) * 4.0),
                };
                let step = push(&mut maze, to.0, to.1);
                earned.push(step.reward);
                seen = step.observation.clone();
                if step.done() {
                    assert!(step.terminated, "seed {seed} ends at {seen:?}");
                    break;
                }
            }
            assert_eq!((earned.pop(), earned.iter().sum::<f64>()), (Some(1.0), 0.0));
        }
    }

    #[test]
    fn walls_hold() {
        let maze = PointMaze::default();
        let mut ball = Simulated::new(PointMaze::default());
        let mut random = NumpyRandom::new(3);
        for seed in 0..20 {
            ball.reset(Some(seed)).unwrap();
            let [mut x, mut y] = [0.0; 2];
            for step in 0..500 {
                if step % 10 == 0 {
                    [x, y] = [(); 2].map(|()| random.uniform(-1.5, 1.5) as f32);
                }
                let over = push(&mut ball, x, y).terminated;
                let [x, y] = ball.state().unwrap().place;
                for corner in [[x - 0.1, y - 0.1], [x + 0.1, y - 0.1], [x - 0.1, y + 0.1], [x + 0.1, y + 0.1]]
                {
                    assert!(!maze.is_wall(corner), "{corner:?} lies in a wall");
                }
                if over {
                    break;
                }
            }
        }
    }

    #[test]
    fn maps_are_read_and_wrong_ones_named() {
        let maze = PointMaze::from_map("\n####\n#SG#\n####\n").unwrap();
        assert_eq!((maze.starts.as_slice(), maze.goal()), ([[1, 1]].as_slice(), [2.5, 1.5]));
        // Outside the map is a wall, and rows may differ in length.
        assert!(maze.is_wall([9.0, 1.0]) && maze.is_wall([-0.1, 1.0]) && !maze.is_wall([1.5, 1.5]));
        for (map, message) in [
            ("S.", "the map of the maze has 0 goals"),
            ("GG.", "the map of the maze has 2 goals"),
            ("#G", "the map of the maze has nowhere to start"),
            ("xG", "the map of the maze has the letter `x`"),
        ] {
            assert_eq!(PointMaze::from_map(map).unwrap_err().message(), message);
        }
    }
}
