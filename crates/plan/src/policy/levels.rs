//! Demand cut into levels: one instance each at first, blocks that grow by a quarter further up, so that a function with a
//! thousand instances has some forty levels and not a thousand.

/// Levels of one instance each.
const SINGLE: u32 = 16;

/// The cut. Level `i` (from 0) stands for the instances `floor(i) + 1 ..= top(i)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Levels;

impl Levels {
    /// Instances below level `index`.
    pub fn floor(index: usize) -> u32 {
        if index == 0 { 0 } else { Self::top(index - 1) }
    }

    /// Instances up to and with level `index`.
    pub fn top(index: usize) -> u32 {
        let mut top = (index as u32 + 1).min(SINGLE);
        for _ in SINGLE as usize..index + 1 {
            top = top.saturating_add(top / 4);
        }
        top
    }

    /// Levels that `demand` instances reach into.
    pub fn reached(demand: u32) -> usize {
        if demand <= SINGLE {
            return demand as usize;
        }
        let (mut levels, mut top) = (SINGLE as usize, SINGLE);
        while top < demand {
            top = top.saturating_add(top / 4);
            levels += 1;
        }
        levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_cover_all_demand_without_gaps() {
        for demand in 0..3000u32 {
            let levels = Levels::reached(demand);
            if demand > 0 {
                assert!(Levels::floor(levels - 1) < demand && demand <= Levels::top(levels - 1), "{demand}");
            }
        }
        assert_eq!(Levels::reached(16), 16);
        assert_eq!((Levels::floor(16), Levels::top(16)), (16, 20));
        assert!(Levels::reached(1000) < 40);
        assert!(Levels::reached(u32::MAX) < 120);
    }
}
