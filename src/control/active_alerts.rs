//! The troubles that stand, as the last look found them.

use std::sync::{Mutex, PoisonError};

use crate::control::snapshot::AlertView;

/// Written by who looks, read by snapshots.
#[derive(Debug, Default)]
pub struct ActiveAlerts(Mutex<Vec<AlertView>>);

impl ActiveAlerts {
    pub fn set(&self, alerts: Vec<AlertView>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = alerts;
    }

    #[must_use]
    pub fn list(&self) -> Vec<AlertView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
