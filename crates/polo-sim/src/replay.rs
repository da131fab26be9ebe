//! What was lived through: transitions side by side, and a ring of them that is drawn from uniformly.
//!
//! Off-policy methods learn from it; there is no second buffer. Everything is f32 and flat, as networks take it; a
//! discrete action is stored as the number of its choice. `next_observations` holds what really followed, also where an
//! episode was cut: the beginning of the next episode is never stored as the end of this one.

use std::path::Path;

use polo_run::{Problem, Result, folder::write_atomic};

/// A ring of transitions.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayBuffer {
    observation: usize,
    action: usize,
    capacity: usize,
    /// Where the next transition goes once the ring is full.
    next: usize,
    held: Batch,
}

/// Transitions side by side, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[rows, observation]`.
    pub observations: Vec<f32>,
    /// `[rows, action]`; choices as numbers, `[rows, 1]`.
    pub actions: Vec<f32>,
    /// `[rows]`.
    pub rewards: Vec<f32>,
    /// `[rows, observation]`.
    pub next_observations: Vec<f32>,
    /// `[rows]`: 1 where the task was over, else 0; a cut episode is not over.
    pub terminated: Vec<f32>,
    /// `[rows]`: what the rest of the episode earned, discounted; empty where nobody asked for it.
    pub returns_to_go: Vec<f32>,
}

impl Batch {
    /// Rows.
    pub fn len(&self) -> usize {
        self.rewards.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }

    /// The rows at these places.
    pub fn at(&self, places: &[usize]) -> Self {
        let pick = |column: &[f32]| {
            let width = column.len() / self.len().max(1);
            let mut picked = Vec::with_capacity(places.len() * width);
            places.iter().for_each(|place| picked.extend_from_slice(&column[place * width..][..width]));
            picked
        };
        Self {
            observations: pick(&self.observations),
            actions: pick(&self.actions),
            rewards: pick(&self.rewards),
            next_observations: pick(&self.next_observations),
            terminated: pick(&self.terminated),
            returns_to_go: pick(&self.returns_to_go),
        }
    }

    /// Adds the rows of another batch. Returns to go are dropped unless both have them.
    pub fn append(&mut self, other: &Self) {
        let both = self.is_empty()
            || other.is_empty()
            || self.returns_to_go.is_empty() == other.returns_to_go.is_empty();
        self.observations.extend_from_slice(&other.observations);
        self.actions.extend_from_slice(&other.actions);
        self.rewards.extend_from_slice(&other.rewards);
        self.next_observations.extend_from_slice(&other.next_observations);
        self.terminated.extend_from_slice(&other.terminated);
        match both {
            true => self.returns_to_go.extend_from_slice(&other.returns_to_go),
            false => self.returns_to_go.clear(),
        }
    }
}

impl ReplayBuffer {
    /// An empty ring for at most `capacity` transitions with so many numbers to an observation and to an action.
    pub fn new(capacity: usize, observation: usize, action: usize) -> Self {
        Self { observation, action, capacity: capacity.max(1), next: 0, held: Batch::default() }
    }

    /// Transitions held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Everything held, oldest first.
    pub fn oldest_first(&self) -> Batch {
        let places: Vec<usize> = (self.next..self.len()).chain(0..self.next).collect();
        self.held.at(&places)
    }

    /// Adds a transition; the oldest makes room once the ring is full. Slices are of the sizes that the ring was made
    /// for.
    pub fn add(&mut self, observation: &[f32], action: &[f32], reward: f32, next: &[f32], terminated: bool) {
        debug_assert_eq!(
            (observation.len(), action.len(), next.len()),
            (self.observation, self.action, self.observation)
        );
        let over = f32::from(u8::from(terminated));
        let full = self.len() == self.capacity;
        let (at, o, a, held) = (self.next, self.observation, self.action, &mut self.held);
        if !full {
            held.observations.extend_from_slice(observation);
            held.actions.extend_from_slice(action);
            held.rewards.push(reward);
            held.next_observations.extend_from_slice(next);
            held.terminated.push(over);
            return;
        }
        held.observations[at * o..][..o].copy_from_slice(observation);
        held.actions[at * a..][..a].copy_from_slice(action);
        held.rewards[at] = reward;
        held.next_observations[at * o..][..o].copy_from_slice(next);
        held.terminated[at] = over;
        self.next = (at + 1) % self.capacity;
    }

    /// The transitions at these places.
    pub fn at(&self, places: &[usize]) -> Batch {
        self.held.at(places)
    }

    /// Writes the ring into a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let sizes = [self.observation, self.action, self.capacity, self.next, self.len()];
        let mut bytes: Vec<u8> = sizes.iter().flat_map(|&size| (size as u64).to_le_bytes()).collect();
        let Batch { observations, actions, rewards, next_observations, terminated, .. } = &self.held;
        for numbers in [observations, actions, rewards, next_observations, terminated] {
            bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
        write_atomic(path, &bytes)
    }

    /// Takes up a ring of the same sizes from a file.
    ///
    /// # Errors
    /// The file is missing, cut short, or of another ring.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let read = Self::read(path)?;
        let sizes = |ring: &Self| (ring.observation, ring.action, ring.capacity);
        if sizes(&read) != sizes(self) {
            return Err(wrong("has other sizes", path));
        }
        *self = read;
        Ok(())
    }

    /// The ring in a file, whatever its sizes.
    ///
    /// # Errors
    /// The file is missing, cut short, or no ring.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Problem::io("read", path, &error))?;
        let short = || wrong("is cut short", path);
        let (head, body) = bytes.split_first_chunk::<40>().ok_or_else(short)?;
        let mut sizes = head.as_chunks().0.iter().map(|b| usize::try_from(u64::from_le_bytes(*b)));
        let mut size = || sizes.next().and_then(std::result::Result::ok).ok_or_else(short);
        let (observation, action, capacity, next, count) = (size()?, size()?, size()?, size()?, size()?);
        if count > capacity || next > count {
            return Err(wrong("has other sizes", path));
        }
        let row = observation.checked_mul(2).and_then(|row| row.checked_add(action)?.checked_add(2));
        if row.and_then(|row| row.checked_mul(count)?.checked_mul(4)) != Some(body.len()) {
            return Err(short());
        }
        let mut numbers = body.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
        let mut take = |count: usize| numbers.by_ref().take(count).collect::<Vec<f32>>();
        let held = Batch {
            observations: take(count * observation),
            actions: take(count * action),
            rewards: take(count),
            next_observations: take(count * observation),
            terminated: take(count),
            returns_to_go: Vec::new(),
        };
        Ok(Self { observation, action, capacity, next, held })
    }
}

fn wrong(what: &str, path: &Path) -> Problem {
    Problem::input(format!("the replay buffer {what}"))
        .place(path.display().to_string())
        .hint("this checkpoint belongs to another run")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: usize) -> ReplayBuffer {
        let mut ring = ReplayBuffer::new(4, 2, 1);
        for n in 0..count {
            let n = n as f32;
            ring.add(&[n, -n], &[10.0 + n], n, &[n + 1.0, -n], n as usize % 3 == 2);
        }
        ring
    }

    #[test]
    fn the_oldest_makes_room() {
        let ring = filled(6);
        assert_eq!(ring.len(), 4);
        let batch = ring.at(&[0, 1, 2, 2]);
        assert_eq!(batch.rewards, [4.0, 5.0, 2.0, 2.0]);
        assert_eq!(batch.observations, [4.0, -4.0, 5.0, -5.0, 2.0, -2.0, 2.0, -2.0]);
        assert_eq!(batch.next_observations[..2], [5.0, -4.0]);
        assert_eq!(
            (batch.actions, batch.terminated),
            (vec![14.0, 15.0, 12.0, 12.0], vec![0.0, 1.0, 1.0, 1.0])
        );
    }

    #[test]
    fn a_ring_comes_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replay.bin");
        for count in [0, 3, 6] {
            let mut ring = filled(count);
            ring.save(&path).unwrap();
            let mut back = ReplayBuffer::new(4, 2, 1);
            back.load(&path).unwrap();
            assert_eq!(back, ring);
            assert_eq!(ReplayBuffer::read(&path).unwrap(), ring);
            for ring in [&mut ring, &mut back] {
                ring.add(&[7.0, 7.0], &[7.0], 7.0, &[7.0, 7.0], false);
            }
            assert_eq!(back, ring);
        }
        let problem = ReplayBuffer::new(4, 3, 1).load(&path).unwrap_err();
        assert!(problem.message().contains("other sizes"), "{problem}");
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 39, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(ReplayBuffer::new(4, 2, 1).load(&path).unwrap_err().message().contains("cut short"));
        }
        for at in 0..5 {
            let mut torn = bytes.clone();
            torn[8 * at..8 * at + 8].fill(0x7f);
            std::fs::write(&path, torn).unwrap();
            assert!(ReplayBuffer::read(&path).is_err() || at == 2, "{at}");
        }
    }
}
