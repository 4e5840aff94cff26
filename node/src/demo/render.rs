//! The demo's work: frames of a zoom into the Mandelbrot set, drawn one by one.
//!
//! A frame costs between a few hundredths of a second and about one, depending on how much of it lies inside the set:
//! uneven on purpose, so that tasks must be handed out as workers become free.
//!
//! # Invariants
//!
//! * A frame is the same on every machine, bit for bit: plain `f64` additions, multiplications and divisions in a fixed
//!   order, no fused operation, nothing from a mathematics library. So its SHA-256 can be shipped with the source.

use sha2::{Digest, Sha256};

/// One drawn frame: a palette index per pixel, row by row. Index zero is the set itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pixels: Vec<u8>,
}

impl Frame {
    /// Draws frame `number` of [`FRAMES`]; `None` if there is no such frame. It takes a second at most, so it cannot be
    /// stopped half-way: half a frame is of no use to anybody.
    #[must_use]
    pub fn draw(number: u32) -> Option<Self> {
        if number >= FRAMES {
            return None;
        }
        let step = width_of(number) / WIDTH as f64;
        let (left, top) = (CENTRE.0 - step * (WIDTH / 2) as f64, CENTRE.1 + step * (HEIGHT / 2) as f64);
        let mut pixels = Vec::with_capacity(WIDTH * HEIGHT);
        for row in 0..HEIGHT {
            let y = top - step * row as f64;
            pixels.extend((0..WIDTH).map(|column| shade(left + step * column as f64, y)));
        }
        Some(Self { pixels })
    }

    /// A frame from its pixels, as they come out of a picture file. `None` if their number is wrong.
    #[must_use]
    pub fn from_pixels(pixels: Vec<u8>) -> Option<Self> {
        (pixels.len() == WIDTH * HEIGHT).then_some(Self { pixels })
    }

    /// The palette indexes, row by row.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The SHA-256 of the pixels, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        Sha256::digest(&self.pixels).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The sums of all frames, in order, as they are shipped with the source.
pub fn golden() -> impl Iterator<Item = &'static str> {
    include_str!("golden.sha256").lines().filter_map(|line| line.split_whitespace().next())
}

/// How wide a piece of the plane a frame shows.
fn width_of(number: u32) -> f64 {
    (0..number).fold(WIDTH_FIRST, |width, _| width * SHRINK)
}

/// The palette index of a point: zero if it does not escape, otherwise a smooth function of how soon it does.
fn shade(x: f64, y: f64) -> u8 {
    let (mut re, mut im) = (0.0f64, 0.0f64);
    for count in 0..ITERATIONS {
        let (re2, im2) = (re * re, im * im);
        if re2 + im2 > ESCAPE {
            return tint(count, re2 + im2);
        }
        im = 2.0 * re * im + y;
        re = re2 - im2 + x;
    }
    0
}

/// The escape count with a fraction from how far the last step went: neighbours differ by little, so no bands are seen.
fn tint(count: u32, size: f64) -> u8 {
    // |z|^2 has just passed 2^16: the logarithm of its logarithm grows by one with every further step.
    let fraction = log2(log2(size) / 16.0);
    // Steps close to the set lie dense: the square root spreads them over the palette.
    let place = (f64::from(count) + 1.0 - fraction).sqrt() * 24.0;
    // The cast cuts off: between 1 and 255, round and round.
    1 + (place as u64 % 255) as u8
}

/// A logarithm good to one hundredth, and the same on every machine: the exponent's bits and a parabola over the rest.
fn log2(value: f64) -> f64 {
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as f64 - 1023.0;
    let rest = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    exponent + (2.0 - rest / 3.0) * rest - 5.0 / 3.0
}

/// How many frames the zoom has.
pub const FRAMES: u32 = 48;

/// Pixels per row.
pub const WIDTH: usize = 640;

/// Rows.
pub const HEIGHT: usize = 360;

/// Where the zoom goes: a valley of the set with spirals at every depth.
const CENTRE: (f64, f64) = (-0.743_643_887_037_158_7, 0.131_825_904_205_311_97);

const WIDTH_FIRST: f64 = 3.6;

const SHRINK: f64 = 0.8;

const ITERATIONS: u32 = 2000;

/// The square of the radius beyond which a point has escaped: large, so that the fraction is smooth.
const ESCAPE: f64 = 65536.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_sum_that_was_shipped() {
        // The cheap ones: the demo itself checks all of them.
        let golden: Vec<_> = golden().collect();
        assert_eq!(golden.len(), FRAMES as usize);
        for number in [0, 20, 47] {
            let frame = Frame::draw(number).expect("there is such a frame");
            assert_eq!(frame.sha256(), golden[number as usize], "frame {number}");
        }
    }

    #[test]
    fn there_is_no_frame_beyond_the_last() {
        assert_eq!(Frame::draw(FRAMES), None);
    }

    #[test]
    fn the_logarithm_is_good_enough_to_hide_bands() {
        for value in [1.0, 1.5, 2.0, 3.0, 17.0, 65536.0] {
            assert!((log2(value) - value.log2()).abs() < 0.011, "{value}");
        }
    }

    /// Prints the list to ship: `cargo test -p tenure --lib print_the_golden_sums -- --ignored --nocapture`.
    #[test]
    #[ignore = "writes nothing, takes as long as the demo"]
    fn print_the_golden_sums() {
        for number in 0..FRAMES {
            let started = std::time::Instant::now();
            let frame = Frame::draw(number).expect("there is such a frame");
            eprintln!("{number} {:?}", started.elapsed());
            println!("{}  frame-{number:02}", frame.sha256());
        }
    }
}
