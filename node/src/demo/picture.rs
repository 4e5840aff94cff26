//! Frames as PNG files: one by one as results, and all of them on one contact sheet.
//!
//! # Invariants
//!
//! * Encoding keeps every pixel: what comes out of a file has the sum of what went in.
//! * Reading allocates for one frame at most, whatever the file claims to be.

use std::io::Cursor;

use super::render::{FRAMES, Frame, HEIGHT, WIDTH};

/// A frame as a PNG file with a palette.
#[must_use]
pub fn encode(frame: &Frame) -> Vec<u8> {
    png(WIDTH, HEIGHT, frame.pixels())
}

/// The frame in a PNG file made by [`encode`].
///
/// # Errors
///
/// In words, if it is anything else.
pub fn decode(file: &[u8]) -> Result<Frame, String> {
    let mut reader = png::Decoder::new_with_limits(Cursor::new(file), png::Limits { bytes: DECODE_MAX })
        .read_info()
        .map_err(|error| format!("not a picture: {error}"))?;
    let info = reader.info();
    let is_frame = (info.width as usize, info.height as usize) == (WIDTH, HEIGHT)
        && (info.color_type, info.bit_depth) == (png::ColorType::Indexed, png::BitDepth::Eight);
    if !is_frame {
        return Err(format!("a picture of {}x{}, not a frame", info.width, info.height));
    }
    let mut pixels = vec![0; WIDTH * HEIGHT];
    reader.next_frame(&mut pixels).map_err(|error| format!("a damaged picture: {error}"))?;
    Frame::from_pixels(pixels).ok_or_else(|| "a picture of another size".to_owned())
}

/// All frames on one sheet, a quarter of their size, in rows of [`COLUMNS`]. A frame that is missing stays dark.
#[must_use]
pub fn contact_sheet(frames: &[Option<Frame>]) -> Vec<u8> {
    let rows = (FRAMES as usize).div_ceil(COLUMNS);
    let (wide, high) = (COLUMNS * (THUMB.0 + GAP) + GAP, rows * (THUMB.1 + GAP) + GAP);
    let mut sheet = vec![0; wide * high];
    for (place, frame) in frames.iter().enumerate().take(FRAMES as usize) {
        let Some(frame) = frame else { continue };
        let (left, top) = (GAP + place % COLUMNS * (THUMB.0 + GAP), GAP + place / COLUMNS * (THUMB.1 + GAP));
        for y in 0..THUMB.1 {
            for x in 0..THUMB.0 {
                // Palette indexes have no mean: one pixel of sixteen stands for its neighbours.
                sheet[(top + y) * wide + left + x] = frame.pixels()[y * SCALE * WIDTH + x * SCALE];
            }
        }
    }
    png(wide, high, &sheet)
}

fn png(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette());
    let mut writer = encoder.write_header().expect("writing to memory cannot fail");
    writer.write_image_data(pixels).expect("the buffer has the size that the header states");
    writer.finish().expect("writing to memory cannot fail");
    file
}

/// Colours from integers alone: night blue over white to amber and back, so that the palette closes to a ring.
fn palette() -> Vec<u8> {
    let mut colours = vec![8, 8, 16];
    for index in 0..255usize {
        let (stop, part) = (index * STOPS.len() / 255, index * STOPS.len() % 255);
        let (from, to) = (STOPS[stop], STOPS[(stop + 1) % STOPS.len()]);
        colours.extend((0..3).map(|channel| {
            let mixed = usize::from(from[channel]) * (255 - part) + usize::from(to[channel]) * part;
            u8::try_from(mixed / 255).expect("a mean of two bytes is a byte")
        }));
    }
    colours
}

const STOPS: [[u8; 3]; 6] = [[0, 7, 100], [32, 107, 203], [237, 255, 255], [255, 170, 0], [140, 40, 10], [20, 2, 40]];

/// Frames per row of the contact sheet.
pub const COLUMNS: usize = 8;

const SCALE: usize = 4;

const THUMB: (usize, usize) = (WIDTH / SCALE, HEIGHT / SCALE);

const GAP: usize = 4;

const DECODE_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_its_file() {
        let frame = Frame::draw(30).expect("there is such a frame");
        let file = encode(&frame);
        assert!(file.len() < 256 * 1024, "a result of {} bytes", file.len());
        assert_eq!(decode(&file), Ok(frame));
    }

    #[test]
    fn what_is_no_frame_is_refused_in_words() {
        assert!(decode(b"hello").unwrap_err().contains("not a picture"));
        assert!(decode(&contact_sheet(&[])).unwrap_err().contains("not a frame"));
        let mut file = encode(&Frame::draw(30).expect("there is such a frame"));
        file.truncate(file.len() / 2);
        assert!(decode(&file).is_err());
    }

    #[test]
    fn a_missing_frame_leaves_its_place_dark() {
        let frame = Frame::draw(30).expect("there is such a frame");
        assert_ne!(contact_sheet(&[None, Some(frame.clone())]), contact_sheet(&[Some(frame), None]));
    }
}
