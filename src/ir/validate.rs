//! Checks whether a sequence of events is a well-formed response.

use crate::ir::event::{BlockStart, ChatEvent};

/// Checks the rules documented at [`ChatEvent`].
///
/// # Errors
///
/// The first violation, in words.
pub fn validate_events(events: &[ChatEvent]) -> Result<(), String> {
    let mut open: Vec<(bool, bool)> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let state = |block: u32| open.get(block as usize).copied();
        match event {
            ChatEvent::Begin { .. } if at == 0 => {}
            ChatEvent::Begin { .. } => return Err(format!("event {at}: a second Begin")),
            _ if at == 0 => return Err("the first event is not Begin".to_owned()),
            ChatEvent::Open { block, head } => {
                if *block as usize != open.len() {
                    return Err(format!(
                        "event {at}: block {block} opened, {} expected",
                        open.len()
                    ));
                }
                open.push((
                    true,
                    !matches!(head, BlockStart::Media(_) | BlockStart::Foreign { .. }),
                ));
            }
            ChatEvent::Delta { block, .. } if state(*block) != Some((true, true)) => {
                return Err(format!("event {at}: a delta for block {block}, which takes none now"));
            }
            ChatEvent::Signature { block, .. }
            | ChatEvent::Citation { block, .. }
            | ChatEvent::Phase { block, .. }
                if !matches!(state(*block), Some((true, _))) =>
            {
                return Err(format!("event {at}: something for block {block}, which is not open"));
            }
            ChatEvent::Close { block } => match open.get_mut(*block as usize) {
                Some(state) if state.0 => state.0 = false,
                _ => return Err(format!("event {at}: block {block} closed, but not open")),
            },
            ChatEvent::End { .. } if at + 1 != events.len() => {
                return Err(format!("event {at}: End is not the last"));
            }
            ChatEvent::End { .. } if open.iter().any(|(open, _)| *open) => {
                return Err(format!("event {at}: End with open blocks"));
            }
            _ => {}
        }
    }
    Ok(())
}
