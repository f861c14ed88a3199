//! Names of values, each kept once however many values have it.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// So many names are looked through for ones that are not shared, at least.
const LEAST_SWEPT: usize = 1024;

/// The names that several values have, and some that came lately.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    table: HashTable<Arc<str>>,
    hasher: RandomState,
    /// Names that only one value has, or none any more, go when there are so many.
    limit: usize,
}

impl Names {
    /// The name, shared with the values that have it.
    pub(super) fn share(&mut self, name: &str) -> Arc<str> {
        let hash = self.hasher.hash_one(name);
        if let Some(known) = self.table.find(hash, |known| **known == *name) {
            return Arc::clone(known);
        }
        if self.table.len() >= self.limit {
            self.sweep();
        }
        let shared: Arc<str> = name.into();
        let rehash = |known: &Arc<str>| self.hasher.hash_one(&**known);
        self.table.insert_unique(hash, Arc::clone(&shared), rehash);
        shared
    }

    /// Lets go of the names that are not shared: they would be kept here for nothing.
    fn sweep(&mut self) {
        // One is held here and one by a value.
        self.table.retain(|name| Arc::strong_count(name) > 2);
        self.limit = LEAST_SWEPT.max(2 * self.table.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_shared_is_kept_once_and_others_do_not_pile_up() {
        let mut names = Names::default();
        let shared: Vec<_> = (0..100).map(|_| names.share("Start")).collect();
        let alone: Vec<_> = (0..50_000)
            .map(|number| names.share(&number.to_string()))
            .collect();
        assert!(
            alone
                .iter()
                .enumerate()
                .all(|(number, name)| **name == *number.to_string())
        );
        assert!(Arc::ptr_eq(&names.share("Start"), &shared[0]));
        assert!(names.table.len() <= LEAST_SWEPT, "{}", names.table.len());
        assert_eq!(&*names.share("START"), "START");
    }
}
