//! Random numbers that never change.
//!
//! What a build draws is part of what an index holds: rotations, samples, clusters. So this
//! generator is frozen, and a test compares its numbers with those that were always drawn.

/// A generator of random numbers: xoshiro256++ (Blackman and Vigna, 2019), seeded by splitmix64.
///
/// The same seed gives the same numbers on every machine and in every version: only integer
/// arithmetic and exact float operations are used. Not for secrets.
#[derive(Clone, Debug)]
pub struct Seeded {
    state: [u64; 4],
}

impl Seeded {
    /// The generator of a seed. Neighbouring seeds give unrelated numbers.
    pub fn new(seed: u64) -> Seeded {
        let mut mixed = seed;
        let state = std::array::from_fn(|_| {
            mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Seeded { state }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `n`, each equally likely (Lemire, 2019).
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "nothing is below 0");
        // The lowest 2^64 mod n products belong to numbers that would come up once too often.
        let unfair = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= unfair {
                return (product >> 64) as u64;
            }
        }
    }

    /// A number in `[0, 1)`, a multiple of 2^-24.
    pub fn next_f32(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// A number of mean 0 and variance 1, close to normally distributed, within -6 and 6.
    ///
    /// The sum of twelve uniform numbers of 16 bits: exact, where logarithm and cosine would differ
    /// in their last bits between machines.
    pub fn gaussian(&mut self) -> f32 {
        let mut sum = 0;
        for _ in 0..3 {
            let bits = self.next_u64();
            sum += (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        }
        // Twelve means of 65,535 / 2 are 393,210; 65,536 is the deviation to within 2^-33.
        (sum as f32 - 393_210.0) / 65_536.0
    }

    /// Brings `items` into an order, each equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::Xxh3;

    use super::*;

    #[test]
    fn the_bits_of_a_seed_never_change() {
        // The first numbers of xoshiro256++ seeded by splitmix64 from 0.
        let mut seeded = Seeded::new(0);
        let first: [u64; 3] = std::array::from_fn(|_| seeded.next_u64());
        let wanted = [0x5317_5d61_490b_23df, 0x61da_6f3d_c380_d507, 0x5c0f_df91_ec9a_7bfc];
        assert_eq!(first, wanted);
    }

    /// Indexes hold what follows from these numbers, and must be the same in every version.
    #[test]
    fn each_kind_of_number_is_frozen() {
        let mut digest = Xxh3::new();
        for seed in [0, 1, 42, u64::MAX] {
            let mut seeded = Seeded::new(seed);
            let mut items: Vec<u32> = (0..1000).collect();
            for n in [1, 2, 7, 1 << 20, (1 << 63) + 1, u64::MAX] {
                (0..100).for_each(|_| digest.update(&seeded.below(n).to_le_bytes()));
                (0..100).for_each(|_| digest.update(&seeded.next_f32().to_le_bytes()));
                (0..100).for_each(|_| digest.update(&seeded.gaussian().to_le_bytes()));
            }
            seeded.shuffle(&mut items);
            digest.update(bytemuck::cast_slice(&items));
        }
        assert_eq!(digest.digest(), 8_629_945_054_697_161_883);
    }

    #[test]
    fn below_is_fair_and_stays_below() {
        let mut seeded = Seeded::new(1);
        let mut times = [0; 7];
        (0..70_000).for_each(|_| times[seeded.below(7) as usize] += 1);
        // 10,000 times each, deviation 93.
        assert!(times.iter().all(|count| (9_600..10_400).contains(count)), "{times:?}");
        assert_eq!(seeded.below(1), 0);
        // Of 2^63 + 1 numbers almost half the draws are unfair.
        let large = (1 << 63) + 1;
        let upper = (0..10_000).filter(|_| seeded.below(large) >= large / 2).count();
        assert!((4_700..5_300).contains(&upper), "{upper}");
    }

    #[test]
    fn floats_have_the_moments_they_promise() {
        let mut seeded = Seeded::new(2);
        let uniform: Vec<f64> = (0..40_000).map(|_| f64::from(seeded.next_f32())).collect();
        assert!(uniform.iter().all(|x| (0.0..1.0).contains(x)));
        let normal: Vec<f64> = (0..40_000).map(|_| f64::from(seeded.gaussian())).collect();
        assert!(normal.iter().all(|x| x.abs() < 6.0));
        for (numbers, mean, variance) in [(&uniform, 0.5, 1.0 / 12.0), (&normal, 0.0, 1.0)] {
            let n = numbers.len() as f64;
            let found = numbers.iter().sum::<f64>() / n;
            assert!((found - mean).abs() < 0.02, "{found}");
            let found = numbers.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
            assert!((found / variance - 1.0).abs() < 0.03, "{found}");
        }
        // A normal number is beyond 2 deviations 4.55 % of the time; a uniform one would never be.
        let far = normal.iter().filter(|x| x.abs() > 2.0).count();
        assert!((1_650..1_990).contains(&far), "{far}");
    }

    #[test]
    fn shuffle_keeps_the_items_and_reaches_every_order() {
        let mut seeded = Seeded::new(3);
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..6_000 {
            let mut items = [1, 2, 3];
            seeded.shuffle(&mut items);
            *seen.entry(items).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|count| (850..1_150).contains(count)), "{seen:?}");
        seeded.shuffle::<u8>(&mut []);
    }
}
