//! Pictures of environments, and films of their episodes. An environment says in [`crate::Environment::draw`] what
//! stands where in its world; here, in one place, that becomes pixels: a GIF that moves, or a PNG of frames side by side.

use std::{collections::BTreeMap, io, path::Path};

use gif::{Encoder, Frame, Repeat};
use polo_run::{Kind, Problem, Result, folder::write_atomic};

use crate::Environment;

/// Red, green, blue.
pub type Colour = [u8; 3];

/// Of what is at rest: ground, tracks, walls.
pub const GROUND: Colour = [176, 186, 197];
/// Of marks that are in the way of nothing.
pub const MARK: Colour = [219, 225, 231];
/// Of bodies.
pub const BODY: Colour = [44, 62, 80];
/// Of what turns on bodies.
pub const ARM: Colour = [211, 109, 47];
/// Of goals.
pub const GOAL: Colour = [67, 160, 101];

const BACKGROUND: Colour = [250, 251, 252];

/// What a part of a world looks like at one moment. y grows upwards; later shapes cover earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    low: [f64; 2],
    high: [f64; 2],
    seconds: f64,
    shapes: Vec<(Colour, Shape)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Disc { centre: [f64; 2], radius: f64 },
    Polygon(Vec<[f64; 2]>),
}

impl Picture {
    /// An empty picture of the world between two corners, to be shown so many seconds.
    pub fn new(low: [f64; 2], high: [f64; 2], seconds: f64) -> Self {
        Self { low, high, seconds, shapes: Vec::new() }
    }

    /// With a disc.
    #[must_use]
    pub fn disc(mut self, colour: Colour, centre: [f64; 2], radius: f64) -> Self {
        self.shapes.push((colour, Shape::Disc { centre, radius }));
        self
    }

    /// With a filled polygon; where it crosses itself, what is enclosed twice stays free.
    #[must_use]
    pub fn polygon(mut self, colour: Colour, corners: Vec<[f64; 2]>) -> Self {
        self.shapes.push((colour, Shape::Polygon(corners)));
        self
    }

    /// With a filled rectangle between two corners.
    #[must_use]
    pub fn rectangle(self, colour: Colour, low: [f64; 2], high: [f64; 2]) -> Self {
        self.polygon(colour, vec![low, [high[0], low[1]], high, [low[0], high[1]]])
    }

    /// With a line of a width in the world's units, its ends round.
    #[must_use]
    pub fn line(self, colour: Colour, from: [f64; 2], to: [f64; 2], width: f64) -> Self {
        let along = [to[0] - from[0], to[1] - from[1]];
        let by = width / 2.0 / along[0].hypot(along[1]).max(f64::MIN_POSITIVE);
        let [x, y] = [-along[1] * by, along[0] * by];
        let corners = vec![
            [from[0] + x, from[1] + y],
            [to[0] + x, to[1] + y],
            [to[0] - x, to[1] - y],
            [from[0] - x, from[1] - y],
        ];
        self.polygon(colour, corners).disc(colour, from, width / 2.0).disc(colour, to, width / 2.0)
    }

    /// Width and height in pixels with the longer side `longer`.
    fn size(&self, longer: usize) -> [usize; 2] {
        let [width, height] = [0, 1].map(|axis| (self.high[axis] - self.low[axis]).abs());
        let shorter = |share: f64| ((longer as f64 * share).round() as usize).clamp(1, longer);
        if width >= height { [longer, shorter(height / width)] } else { [shorter(width / height), longer] }
    }
}

/// Samples of a pixel along each axis.
const SAMPLES: usize = 4;

/// Colours, row by row from above.
#[derive(Clone, Debug, PartialEq)]
struct Pixels {
    size: [usize; 2],
    colours: Vec<Colour>,
}

impl Pixels {
    /// A picture in pixels. Each is the mean of 16 samples, of which every one has the colour of what covers it last.
    fn of(picture: &Picture, size: [usize; 2]) -> Self {
        let [width, height] = size.map(|side| side * SAMPLES);
        let mut samples = vec![BACKGROUND; width * height];
        let sides = [0, 1].map(|axis| picture.high[axis] - picture.low[axis]);
        let scale = [width as f64 / sides[0], height as f64 / sides[1]];
        let place = |[x, y]: [f64; 2]| {
            [(x - picture.low[0]) * scale[0], height as f64 - (y - picture.low[1]) * scale[1]]
        };
        for (colour, shape) in &picture.shapes {
            // The samples whose middles lie between two places of a row.
            let mut fill = |row: usize, from: f64, to: f64| {
                let [from, to] = [from, to].map(|x| ((x - 0.5).ceil().max(0.0) as usize).min(width));
                if from < to {
                    samples[row * width + from..row * width + to].fill(*colour);
                }
            };
            let rows_between = |low: f64, high: f64| {
                let [low, high] = [low.floor(), high.ceil()].map(|y| (y.max(0.0) as usize).min(height));
                low..high
            };
            match shape {
                Shape::Disc { centre, radius } => {
                    let [x, y] = place(*centre);
                    let [across, up] = scale.map(|scale| radius * scale);
                    for row in rows_between(y - up, y + up) {
                        let share = (row as f64 + 0.5 - y) / up;
                        let half = across * (1.0 - share * share).max(0.0).sqrt();
                        fill(row, x - half, x + half);
                    }
                }
                Shape::Polygon(corners) => {
                    let corners: Vec<[f64; 2]> = corners.iter().map(|&corner| place(corner)).collect();
                    let low = corners.iter().map(|corner| corner[1]).fold(f64::INFINITY, f64::min);
                    let high = corners.iter().map(|corner| corner[1]).fold(f64::NEG_INFINITY, f64::max);
                    for row in rows_between(low, high) {
                        let y = row as f64 + 0.5;
                        let sides = corners.iter().zip(corners.iter().cycle().skip(1));
                        let mut crossings: Vec<f64> = sides
                            .filter(|(a, b)| (a[1] <= y) != (b[1] <= y))
                            .map(|(a, b)| a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]))
                            .collect();
                        crossings.sort_by(f64::total_cmp);
                        crossings.chunks_exact(2).for_each(|pair| fill(row, pair[0], pair[1]));
                    }
                }
            }
        }
        let mean = |pixel: usize| {
            let first = pixel / size[0] * SAMPLES * width + pixel % size[0] * SAMPLES;
            let rows = [0, 1, 2, 3].map(|row| &samples[first + row * width..][..SAMPLES]);
            // Most pixels lie within one shape.
            if rows.iter().all(|row| **row == [samples[first]; SAMPLES]) {
                return samples[first];
            }
            let mut sums = [0_u16; 3];
            for sample in rows.into_iter().flatten() {
                sums.iter_mut().zip(sample).for_each(|(sum, &part)| *sum += u16::from(part));
            }
            sums.map(|sum| (sum / (SAMPLES * SAMPLES) as u16) as u8)
        };
        Self { size, colours: (0..size[0] * size[1]).map(mean).collect() }
    }
}

/// What a film is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A GIF that shows every step, over and over, [`Film::LONGER`] pixels along its longer side.
    Gif,
    /// A PNG of [`Film::FRAMES`] frames side by side, evenly spaced from the first to the last, each
    /// [`Film::LONGER_OF_STRIP`] pixels along its longer side.
    Png,
}

impl Format {
    /// The format that the ending of a file's name asks for.
    ///
    /// # Errors
    /// Another ending.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().map(|ending| ending.to_ascii_lowercase()) {
            Some(ending) if ending == "gif" => Ok(Format::Gif),
            Some(ending) if ending == "png" => Ok(Format::Png),
            _ => Err(Problem::usage(format!("`{}` is no file for a film", path.display()))
                .hint("end its name with .gif for one that moves, or with .png for a strip of frames")),
        }
    }
}

/// The pictures of an episode.
#[derive(Clone, Debug, Default)]
pub struct Film {
    pictures: Vec<Picture>,
}

impl Film {
    /// Longer side of a GIF, pixels.
    pub const LONGER: usize = 400;
    /// Longer side of each frame of a strip, pixels.
    pub const LONGER_OF_STRIP: usize = 240;
    /// Frames of a strip, fewer where an episode has fewer.
    pub const FRAMES: usize = 6;
    /// Between two frames of a strip, pixels.
    pub const GAP: usize = 4;
    /// How long a GIF stands still at its end, seconds.
    const PAUSE: f64 = 1.0;

    /// Takes a picture of an environment as it stands.
    ///
    /// # Errors
    /// It cannot be drawn.
    pub fn take(&mut self, environment: &dyn Environment) -> Result<()> {
        let picture = environment.draw().ok_or_else(|| {
            Problem::usage("the environment cannot be drawn").hint(
                "environments in Rust say how they look in `Dynamics::draw`; those of Python are filmed there, by \
                 gymnasium.wrappers.RecordVideo",
            )
        })?;
        self.pictures.push(picture);
        Ok(())
    }

    /// Writes the film.
    ///
    /// # Errors
    /// It has no pictures; the file cannot be written.
    pub fn write(&self, path: &Path, format: Format) -> Result<()> {
        let Some(first) = self.pictures.first() else {
            return Err(Problem::usage("a film without pictures").hint("take one at least"));
        };
        let bytes = match format {
            Format::Gif => self.gif(first.size(Self::LONGER)).map_err(io::Error::other),
            Format::Png => self.strip(first.size(Self::LONGER_OF_STRIP)).map_err(io::Error::other),
        };
        let bytes = bytes.map_err(|error| {
            Problem::new(Kind::System, format!("the film cannot be encoded: {error}"))
                .place(path.display().to_string())
        })?;
        write_atomic(path, &bytes)
    }

    fn gif(&self, size: [usize; 2]) -> std::result::Result<Vec<u8>, gif::EncodingError> {
        let [width, height] = size.map(|side| side as u16);
        let mut encoder = Encoder::new(Vec::new(), width, height, &[])?;
        encoder.set_repeat(Repeat::Infinite)?;
        let mut before: Option<Pixels> = None;
        for (number, picture) in self.pictures.iter().enumerate() {
            let pixels = Pixels::of(picture, size);
            let [low, high] = changed(before.as_ref(), &pixels);
            let ends = number + 1 == self.pictures.len();
            let seconds = picture.seconds + if ends { Self::PAUSE } else { 0.0 };
            encoder.write_frame(&Frame {
                // Below two hundredths many viewers take a tenth of a second.
                delay: (seconds * 100.0).round().max(2.0) as u16,
                ..part(&pixels, low, high)
            })?;
            before = Some(pixels);
        }
        encoder.into_inner()
    }

    fn strip(&self, size: [usize; 2]) -> std::result::Result<Vec<u8>, png::EncodingError> {
        let last = self.pictures.len() - 1;
        let frames = self.pictures.len().min(Self::FRAMES);
        let frame = |number: usize| {
            let at = number * last / (frames - 1).max(1);
            Pixels::of(&self.pictures[at], size)
        };
        let frames: Vec<Pixels> = (0..frames).map(frame).collect();
        let gap = [MARK; Self::GAP];
        let mut bytes = Vec::new();
        for row in 0..size[1] {
            for (number, frame) in frames.iter().enumerate() {
                let before = if number == 0 { &[] } else { gap.as_flattened() };
                bytes.extend_from_slice(before);
                bytes.extend_from_slice(frame.colours[row * size[0]..][..size[0]].as_flattened());
            }
        }
        let width = frames.len() * (size[0] + Self::GAP) - Self::GAP;
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width as u32, size[1] as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&bytes)?;
        Ok(file)
    }
}

/// The least rectangle (first and last column and row) outside of which nothing changed; all of the first frame, one pixel
/// where all stays as it was.
fn changed(before: Option<&Pixels>, now: &Pixels) -> [[usize; 2]; 2] {
    let [width, height] = now.size;
    let Some(before) = before else {
        return [[0, 0], [width - 1, height - 1]];
    };
    let differ = (0..width * height).filter(|&place| before.colours[place] != now.colours[place]);
    let bounds = differ.map(|place| [place % width, place / width]).fold(None, |bounds, [x, y]| {
        let [[left, top], [right, bottom]] = bounds.unwrap_or([[x, y]; 2]);
        Some([[left.min(x), top.min(y)], [right.max(x), bottom.max(y)]])
    });
    bounds.unwrap_or([[0, 0]; 2])
}

/// A rectangle of a frame, with a palette of its own. Mixtures beyond 256 colours take the nearest one that is there.
fn part(pixels: &Pixels, [left, top]: [usize; 2], [right, bottom]: [usize; 2]) -> Frame<'static> {
    let (mut palette, mut known) = (Vec::<Colour>::new(), BTreeMap::<Colour, u8>::new());
    let mut index = |colour: Colour| {
        *known.entry(colour).or_insert_with(|| {
            if palette.len() < 256 {
                palette.push(colour);
                return (palette.len() - 1) as u8;
            }
            let far = |other: &Colour| -> u32 {
                colour.iter().zip(other).map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum()
            };
            (0..palette.len()).min_by_key(|&at| far(&palette[at])).unwrap_or(0) as u8
        })
    };
    let row = |row: usize| &pixels.colours[row * pixels.size[0]..][left..=right];
    let mut last = None;
    let indices: Vec<u8> = (top..=bottom)
        .flat_map(row)
        .map(|&colour| match last {
            Some((same, known)) if same == colour => known,
            _ => {
                let found = index(colour);
                last = Some((colour, found));
                found
            }
        })
        .collect();
    let [width, height] = [right - left + 1, bottom - top + 1].map(|side| side as u16);
    Frame {
        left: left as u16,
        top: top as u16,
        ..Frame::from_palette_pixels(width, height, indices, palette.as_flattened(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make;

    /// How much of a picture from (0, 0) to (4, 2) `shape` covers, in units of the world.
    fn area(shape: impl Fn(Picture) -> Picture) -> f64 {
        let pixels = Pixels::of(&shape(Picture::new([0.0, 0.0], [4.0, 2.0], 0.1)), [200, 100]);
        let covered = |colour: &Colour| f64::from(BACKGROUND[0] - colour[0]) / f64::from(BACKGROUND[0]);
        pixels.colours.iter().map(covered).sum::<f64>() * 8.0 / 20_000.0
    }

    #[test]
    fn shapes_cover_what_they_should() {
        let check =
            |found: f64, expected: f64| assert!((found - expected).abs() < 0.01, "{found} {expected}");
        let (black, pi) = ([0; 3], std::f64::consts::PI);
        check(area(|picture| picture.disc(black, [2.0, 1.0], 0.7)), 0.49 * pi);
        check(area(|picture| picture.disc(black, [0.0, 0.0], 1.0)), pi / 4.0);
        check(area(|picture| picture.rectangle(black, [-9.0, 0.5], [1.0, 1.25])), 0.75);
        check(area(|picture| picture.polygon(black, vec![[0.0, 0.0], [4.0, 0.0], [1.0, 1.5]])), 3.0);
        // A bow tie, whose halves turn opposite ways.
        check(
            area(|picture| picture.polygon(black, vec![[1.0, 0.0], [2.0, 2.0], [1.0, 2.0], [2.0, 0.0]])),
            1.0,
        );
        check(
            area(|picture| picture.line(black, [1.0, 0.5], [2.0, 1.5], 0.2)),
            0.2 * 2_f64.sqrt() + 0.01 * pi,
        );
        check(area(|picture| picture.line(black, [1.0, 1.0], [1.0, 1.0], 0.5)), 0.0625 * pi);
    }

    #[test]
    fn up_is_up_and_later_shapes_cover_earlier_ones() {
        let picture = Picture::new([-1.0, -1.0], [1.0, 1.0], 0.1)
            .rectangle(GOAL, [-1.0, 0.0], [1.0, 1.0])
            .rectangle(BODY, [0.5, 0.5], [1.0, 1.0]);
        let pixels = Pixels::of(&picture, [4, 4]);
        let b = BACKGROUND;
        assert_eq!(pixels.colours[..4], [GOAL, GOAL, GOAL, BODY]);
        assert_eq!(pixels.colours[4..8], [GOAL; 4]);
        assert_eq!(pixels.colours[8..], [b; 8]);
    }

    /// A world that has left the finite numbers still has a picture.
    #[test]
    fn no_numbers_make_no_panic() {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 0.0];
        let mut film = Film::default();
        for x in odd {
            for y in odd {
                let picture = Picture::new([0.0, y], [1.0, x], y)
                    .line(BODY, [x, y], [0.5, 0.5], 0.1)
                    .disc(ARM, [y, 0.2], x)
                    .polygon(GOAL, vec![[x, 0.0], [0.0, y], [1.0, 1.0]])
                    .polygon(GOAL, Vec::new());
                let [width, height] = picture.size(20);
                assert!((1..=20).contains(&width) && (1..=20).contains(&height));
                film.pictures.push(picture);
            }
        }
        film.gif([20, 10]).unwrap();
        film.strip([20, 10]).unwrap();
    }

    #[test]
    fn classic_environments_can_be_drawn() {
        for id in [
            "CartPole-v1",
            "Pendulum-v1",
            "Acrobot-v1",
            "MountainCar-v0",
            "MountainCarContinuous-v0",
            "polo/PointMaze-v0",
            "polo/LinearQuadratic-v0",
        ] {
            let mut environment = make(id).unwrap();
            assert!(environment.draw().is_none(), "{id} is drawn before its first episode");
            environment.reset(Some(0)).unwrap();
            let (first, action) = (environment.draw(), environment.action_space().clone());
            environment.step(&action.sample(&mut crate::NumpyRandom::new(1))).unwrap();
            assert!(first.is_some() && first != environment.draw(), "{id} stands still");
        }
    }

    #[test]
    fn a_gif_shows_every_frame_whole() {
        let pictures: Vec<Picture> = (0..5)
            .map(|step| Picture::new([0.0; 2], [2.0, 1.0], 0.05).disc(ARM, [0.4 * f64::from(step), 0.5], 0.2))
            .collect();
        let size = pictures[0].size(60);
        let film = Film { pictures: [pictures.clone(), vec![pictures[4].clone()]].concat() };
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let bytes = film.gif(size).unwrap();
        let mut decoder = options.read_info(&*bytes).unwrap();
        assert_eq!([decoder.width(), decoder.height()], [60, 30]);
        let mut canvas = vec![[0; 3]; 60 * 30];
        let mut delays = Vec::new();
        for picture in &film.pictures {
            let frame = decoder.read_next_frame().unwrap().unwrap();
            delays.push(frame.delay);
            for (number, colour) in frame.buffer.chunks_exact(4).enumerate() {
                let width = usize::from(frame.width);
                let (x, y) =
                    (number % width + usize::from(frame.left), number / width + usize::from(frame.top));
                canvas[y * 60 + x].copy_from_slice(&colour[..3]);
            }
            assert!(canvas == Pixels::of(picture, size).colours);
        }
        assert!(decoder.read_next_frame().unwrap().is_none());
        assert_eq!(delays, [5, 5, 5, 5, 5, 105]);
    }

    /// A frame with a colour per pixel loses little.
    #[test]
    fn more_colours_than_a_gif_has_are_approached() {
        let colours: Vec<Colour> =
            (0..400_u32).map(|at| [(at % 20 * 12) as u8, (at / 20 * 12) as u8, 7]).collect();
        let pixels = Pixels { size: [20, 20], colours: colours.clone() };
        let frame = part(&pixels, [0, 0], [19, 19]);
        let palette = frame.palette.unwrap();
        assert_eq!(palette.len(), 3 * 256);
        let shown = |place: usize| &palette[3 * usize::from(frame.buffer[place])..][..3];
        assert!((0..256).all(|place| shown(place) == colours[place]));
        // The rest lies within eight rows of those.
        let near = |place: usize| shown(place).iter().zip(colours[place]).all(|(a, b)| a.abs_diff(b) <= 96);
        assert!((256..400).all(near));
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let problem = Film::default().take(&make("CartPole-v1").unwrap()).unwrap_err();
        assert_eq!(problem.message(), "the environment cannot be drawn");
        assert!(problem.hint_text().is_some_and(|hint| hint.contains("Dynamics::draw")));
        assert!(Film::default().write(Path::new("none.gif"), Format::Gif).is_err());
    }

    #[test]
    fn formats_are_told_by_names() {
        let check = |name: &str, format| assert_eq!(Format::of(Path::new(name)).ok(), format, "{name}");
        check("a.gif", Some(Format::Gif));
        check("b/c.PNG", Some(Format::Png));
        check("a.mp4", None);
        check("gif", None);
    }
}
