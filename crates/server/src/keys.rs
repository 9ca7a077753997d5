//! Whose keys are good: the root key pair, and the temporary ones of functions' roles.

use crate::data::Keys;
use mayfly_model::Lineage;
use mayfly_node::inside::{Badges, Caller};
use mayfly_sign::{Credential, CredentialSource};
use std::sync::Arc;

/// All keys.
#[derive(Clone)]
pub struct Keychain {
    root_id: String,
    root: Credential,
    badges: Badges,
}

impl Keychain {
    /// The root pair, and the badges that functions have.
    pub fn new(keys: &Keys, badges: Badges) -> Self {
        let root = Credential::permanent(keys.secret_key.as_str());
        Self { root_id: keys.secret_id.clone(), root, badges }
    }

    /// The keys that count for somebody: at an instance's own sockets, of the temporary ones only its own.
    pub fn at<'a>(&'a self, inside: Option<&'a Arc<Caller>>) -> KeysAt<'a> {
        KeysAt { chain: self, inside }
    }

    /// Who a request is from that was signed with these keys: the role, if it has one, and what the request comes of.
    pub fn asker(&self, secret_id: &str, inside: Option<&Arc<Caller>>) -> mayfly_control::Caller {
        let badge = self.badges.get(secret_id);
        let lineage = match (inside, &badge) {
            (Some(caller), _) => caller.lineage(),
            (None, Some(badge)) => badge.lineage(),
            (None, None) => Lineage::default(),
        };
        mayfly_control::Caller { role: badge.map(|badge| badge.role().to_owned()), lineage }
    }
}

impl CredentialSource for Keychain {
    fn find(&self, secret_id: &str) -> Option<Credential> {
        self.at(None).find(secret_id)
    }
}

/// See [`Keychain::at`].
pub struct KeysAt<'a> {
    chain: &'a Keychain,
    inside: Option<&'a Arc<Caller>>,
}

impl CredentialSource for KeysAt<'_> {
    fn find(&self, secret_id: &str) -> Option<Credential> {
        if secret_id == self.chain.root_id {
            return Some(self.chain.root.clone());
        }
        match self.inside {
            None => self.chain.badges.find(secret_id),
            Some(caller) => caller.badge().credential().filter(|_| caller.badge().secret_id() == secret_id),
        }
    }
}
