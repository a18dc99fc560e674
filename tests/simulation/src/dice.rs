//! Chance from a seed: the same on every machine and with every version of every crate, so that a seed written down today fails tomorrow.

/// splitmix64: small, even enough, and nothing to keep up to date.
#[derive(Clone, Debug)]
pub struct Dice(u64);

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dice {
    /// A stream of its own for each purpose: what one draws does not move the others.
    pub fn new(seed: u64, stream: &str) -> Self {
        let named = stream.bytes().fold(seed, |state, byte| mix(state ^ u64::from(byte)).wrapping_add(1));
        Self(mix(named))
    }

    /// The draws of one place of a stream, whatever was drawn before.
    pub fn at(seed: u64, stream: &str, place: u64) -> Self {
        Self(mix(Self::new(seed, stream).0 ^ mix(place)))
    }

    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub const fn below(&mut self, n: u64) -> u64 {
        self.draw() % n
    }

    pub fn index(&mut self, len: usize) -> usize {
        (self.draw() % (len as u64).max(1)) as usize
    }

    pub const fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// So many times in a thousand.
    pub const fn per_mille(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
