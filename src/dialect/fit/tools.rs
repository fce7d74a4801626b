//! Fits tools and the choice among them.

use crate::{
    dialect::losses::Losses,
    ir::{
        model_facts::{ChoiceForm, ModelFacts},
        request::ChatRequest,
        tool::{Tool, ToolChoice},
    },
};

/// Replaces tools and choice as far as the model does not accept them; returns the original tools if
/// they were replaced. A form of choice that is not accepted is kept as far as possible by offering
/// only the tools that may be called.
pub(super) fn fit(
    request: &mut ChatRequest,
    facts: &ModelFacts,
    losses: &mut Losses,
) -> Option<Vec<Tool>> {
    if request.tools.is_empty() {
        return None;
    }
    if facts.tools == Some(false) {
        losses.add("tools");
        losses.when(forces_call(request.tool_choice.as_ref()), "tool_choice");
        request.tool_choice = None;
        return Some(std::mem::take(&mut request.tools));
    }
    let takes = |form| facts.tool_choice.as_ref().is_some_and(|forms| forms.contains(&form));
    match request.tool_choice.clone()? {
        ToolChoice::Auto => None,
        ToolChoice::None if takes(ChoiceForm::None) => None,
        ToolChoice::None => {
            request.tool_choice = None;
            Some(std::mem::take(&mut request.tools))
        }
        ToolChoice::Required if takes(ChoiceForm::Required) => None,
        ToolChoice::Required => {
            losses.add("tool_choice");
            request.tool_choice = None;
            None
        }
        ToolChoice::Named(_) if takes(ChoiceForm::Named) => None,
        ToolChoice::Named(name) => {
            let force = takes(ChoiceForm::Required);
            losses.when(!force, "tool_choice");
            request.tool_choice = force.then_some(ToolChoice::Required);
            Some(offer_only(request, &[name]))
        }
        ToolChoice::Allowed { names, required } => {
            if takes(ChoiceForm::Named) {
                return None;
            }
            let force = required && takes(ChoiceForm::Required);
            losses.when(required && !force, "tool_choice");
            request.tool_choice = force.then_some(ToolChoice::Required);
            Some(offer_only(request, &names))
        }
    }
}

fn forces_call(choice: Option<&ToolChoice>) -> bool {
    matches!(
        choice,
        Some(
            ToolChoice::Named(_)
                | ToolChoice::Required
                | ToolChoice::Allowed { required: true, .. }
        )
    )
}

/// Offers only tools with these names; returns all.
fn offer_only(request: &mut ChatRequest, names: &[String]) -> Vec<Tool> {
    let offered = request
        .tools
        .iter()
        .filter(|tool| tool.name().is_some_and(|name| names.iter().any(|n| n == name)))
        .cloned()
        .collect();
    std::mem::replace(&mut request.tools, offered)
}
