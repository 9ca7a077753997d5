//! Keys of the function table: looked up by two texts, without owning them.

use super::SHARDS;
use mayfly_model::{FunctionName, NamespaceName};
use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

/// Namespace and name of a function: the key of the table.
#[derive(Clone, Debug)]
pub(super) struct FunctionKey {
    pub namespace: NamespaceName,
    pub function: FunctionName,
}

/// A key that can be looked up without being owned.
pub(super) trait PairKey {
    fn pair(&self) -> (&str, &str);
}

impl PairKey for FunctionKey {
    fn pair(&self) -> (&str, &str) {
        (self.namespace.as_str(), self.function.as_str())
    }
}

impl PairKey for (&str, &str) {
    fn pair(&self) -> (&str, &str) {
        *self
    }
}

impl Hash for dyn PairKey + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pair().hash(state);
    }
}

impl PartialEq for dyn PairKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.pair() == other.pair()
    }
}

impl Eq for dyn PairKey + '_ {}

impl Hash for FunctionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pair().hash(state);
    }
}

impl PartialEq for FunctionKey {
    fn eq(&self, other: &Self) -> bool {
        self.pair() == other.pair()
    }
}

impl Eq for FunctionKey {}

impl<'a> Borrow<dyn PairKey + 'a> for FunctionKey {
    fn borrow(&self) -> &(dyn PairKey + 'a) {
        self
    }
}

/// The shard of a key, by FNV-1a: cheap, and apart from the table's own hash, which is the one that withstands chosen names.
pub(super) fn shard_of(key: &dyn PairKey) -> usize {
    let (namespace, function) = key.pair();
    let bytes = namespace.bytes().chain([0]).chain(function.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32) as usize % SHARDS
}
