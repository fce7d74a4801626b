//! The keyring with a real Secret Service, and with services that are broken or missing.

use std::time::Duration;

use aiproxy::secrets::{
    Secret,
    keyring::{Keyring, KeyringError},
};

use crate::support::keyring::{Service, lock_collection, restart_daemon, run_on_bus};

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

async fn stored_secret(keyring: &Keyring, label: &str) -> Option<String> {
    keyring.get(label).await.expect("an answer").map(|secret| secret.expose().to_owned())
}

#[test]
fn key_round_trips_through_the_secret_service() {
    run_on_bus(Service::Unlocked, "keyring::key_round_trips_through_the_secret_service", async {
        let keyring = Keyring::system();
        keyring.probe().await.expect("usable");

        assert_eq!(stored_secret(&keyring, "openai/work").await, None);
        keyring.set("openai/work", &secret("sk-one")).await.expect("stored");
        keyring.set("openai/work", &secret("sk-two")).await.expect("replaced");

        assert_eq!(stored_secret(&keyring, "openai/work").await.as_deref(), Some("sk-two"));
        assert_eq!(
            stored_secret(&Keyring::system(), "openai/work").await.as_deref(),
            Some("sk-two"),
            "another connection"
        );
        assert!(keyring.delete("openai/work").await.expect("removed"));
        assert!(!keyring.delete("openai/work").await.expect("not there any more"));
        assert_eq!(stored_secret(&keyring, "openai/work").await, None);
    });
}

#[test]
fn concurrent_reads_succeed() {
    run_on_bus(Service::Unlocked, "keyring::concurrent_reads_succeed", async {
        let keyring = Keyring::system();

        let all = (0..100).map(|n| {
            let keyring = keyring.clone();
            async move {
                let (label, value) = (format!("openai/{n}"), format!("sk-{n}"));
                keyring.set(&label, &secret(&value)).await.expect("stored");
                assert_eq!(stored_secret(&keyring, &label).await, Some(value));
            }
        });
        futures_util::future::join_all(all).await;
    });
}

#[test]
fn restarted_secret_service_is_found_again() {
    run_on_bus(Service::Unlocked, "keyring::restarted_secret_service_is_found_again", async {
        let keyring = Keyring::system();
        keyring.set("openai/work", &secret("sk-one")).await.expect("stored");

        restart_daemon();

        assert_eq!(stored_secret(&keyring, "openai/work").await.as_deref(), Some("sk-one"));
        keyring.set("openai/work", &secret("sk-two")).await.expect("stored again");
    });
}

#[test]
fn locked_collection_is_reported_as_locked() {
    run_on_bus(Service::Unlocked, "keyring::locked_collection_is_reported_as_locked", async {
        let keyring = Keyring::system();
        keyring.set("openai/work", &secret("sk-one")).await.expect("stored");

        lock_collection();

        assert_eq!(keyring.get("openai/work").await.expect_err("locked"), KeyringError::Locked);
        assert_eq!(
            keyring.set("openai/work", &secret("sk-two")).await.expect_err("locked"),
            KeyringError::Locked
        );
        assert_eq!(keyring.probe().await.expect_err("locked"), KeyringError::Locked);
    });
}

#[test]
fn service_without_a_collection_is_unavailable() {
    run_on_bus(
        Service::NeverUnlocked,
        "keyring::service_without_a_collection_is_unavailable",
        async {
            let error = Keyring::system().probe().await.expect_err("nowhere");

            assert!(matches!(error, KeyringError::NoService(_) | KeyringError::Locked), "{error}");
            assert!(error.hint().contains("--vault"));
        },
    );
}

#[test]
fn bus_without_a_secret_service_is_reported() {
    run_on_bus(Service::Absent, "keyring::bus_without_a_secret_service_is_reported", async {
        let error = Keyring::system().get("openai/work").await.expect_err("nobody");

        assert!(matches!(error, KeyringError::NoService(_)), "{error}");
        assert_eq!(
            error.to_string(),
            "no OS keyring service: no session bus, or no Secret Service on it"
        );
    });
}

#[test]
fn missing_bus_is_reported() {
    run_on_bus(Service::NoBus, "keyring::missing_bus_is_reported", async {
        let keyring = Keyring::system();

        let error = keyring.get("openai/work").await.expect_err("no bus");
        assert_eq!(error.to_string(), "no OS keyring service: no session bus runs for this user");
        assert!(matches!(keyring.probe().await, Err(KeyringError::NoService(_))));
    });
}

#[test]
fn unresponsive_secret_service_is_awaited_once() {
    run_on_bus(Service::Silent, "keyring::unresponsive_secret_service_is_awaited_once", async {
        let keyring = Keyring::system().with_timeout(Duration::from_secs(1));

        assert_eq!(keyring.get("openai/work").await.expect_err("silent"), KeyringError::Timeout);
        assert_eq!(keyring.get("openai/home").await.expect_err("held"), KeyringError::Busy);
    });
}
