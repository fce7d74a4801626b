//! What a request loses on its way into this dialect, each thing named once.

use crate::dialect::Loss;

#[derive(Debug, Default)]
pub(super) struct Losses(Vec<Loss>);

impl Losses {
    pub(super) fn add(&mut self, field: &str) {
        if !self.0.iter().any(|loss| loss.0 == field) {
            self.0.push(Loss(field.to_owned().into()));
        }
    }

    pub(super) fn into_vec(self) -> Vec<Loss> {
        self.0
    }
}
