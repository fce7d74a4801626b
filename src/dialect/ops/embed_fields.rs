//! Maps each embedding form's field names and task names to the common form.

use crate::{
    base::json::reader::JsonRef,
    ir::embed::{EmbedForm, EmbedTask},
};

/// The field names of one form; `None` if it has no such field.
pub(in crate::dialect::ops) struct FieldNames {
    pub form: EmbedForm,
    pub input: &'static str,
    pub dimensions: Option<&'static str>,
    pub encoding: Option<&'static str>,
    pub task: Option<&'static str>,
    pub truncate: Option<&'static str>,
    task_names: &'static [(EmbedTask, &'static str)],
}

use EmbedTask as T;

const TASK_FORM_TASKS: &[(EmbedTask, &str)] = &[
    (T::Query, "retrieval.query"),
    (T::Document, "retrieval.passage"),
    (T::Similarity, "text-matching"),
    (T::Classification, "classification"),
    (T::Clustering, "separation"),
    (T::CodeQuery, "code.query"),
];
const INPUT_TYPE_FORM_TASKS: &[(EmbedTask, &str)] =
    &[(T::Query, "query"), (T::Document, "document")];
const TEXTS_FORM_TASKS: &[(EmbedTask, &str)] = &[
    (T::Query, "search_query"),
    (T::Document, "search_document"),
    (T::Classification, "classification"),
    (T::Clustering, "clustering"),
];
const GEMINI_FORM_TASKS: &[(EmbedTask, &str)] = &[
    (T::Query, "RETRIEVAL_QUERY"),
    (T::Document, "RETRIEVAL_DOCUMENT"),
    (T::Similarity, "SEMANTIC_SIMILARITY"),
    (T::Classification, "CLASSIFICATION"),
    (T::Clustering, "CLUSTERING"),
    (T::QuestionAnswering, "QUESTION_ANSWERING"),
    (T::FactVerification, "FACT_VERIFICATION"),
    (T::CodeQuery, "CODE_RETRIEVAL_QUERY"),
];

pub(in crate::dialect::ops) fn field_names(form: EmbedForm) -> FieldNames {
    let none = FieldNames {
        form,
        input: "input",
        dimensions: None,
        encoding: None,
        task: None,
        truncate: None,
        task_names: &[],
    };
    match form {
        EmbedForm::Openai => {
            FieldNames { dimensions: Some("dimensions"), encoding: Some("encoding_format"), ..none }
        }
        EmbedForm::Task => FieldNames {
            dimensions: Some("dimensions"),
            encoding: Some("embedding_type"),
            task: Some("task"),
            truncate: Some("truncate"),
            task_names: TASK_FORM_TASKS,
            ..none
        },
        EmbedForm::InputType => FieldNames {
            dimensions: Some("output_dimension"),
            encoding: Some("encoding_format"),
            task: Some("input_type"),
            truncate: Some("truncation"),
            task_names: INPUT_TYPE_FORM_TASKS,
            ..none
        },
        EmbedForm::Texts => FieldNames {
            input: "texts",
            dimensions: Some("output_dimension"),
            encoding: Some("embedding_types"),
            task: Some("input_type"),
            truncate: Some("truncate"),
            task_names: TEXTS_FORM_TASKS,
            ..none
        },
        EmbedForm::Gemini | EmbedForm::GeminiBatch => FieldNames {
            input: "content",
            dimensions: Some("outputDimensionality"),
            task: Some("taskType"),
            task_names: GEMINI_FORM_TASKS,
            ..none
        },
        EmbedForm::Ollama => {
            FieldNames { dimensions: Some("dimensions"), truncate: Some("truncate"), ..none }
        }
        EmbedForm::OllamaPrompt => FieldNames { input: "prompt", ..none },
    }
}

impl FieldNames {
    pub(in crate::dialect::ops) fn read_task(&self, word: &str) -> EmbedTask {
        let known = self.task_names.iter().find(|(_, name)| *name == word);
        known.map_or_else(|| EmbedTask::Other(word.to_owned()), |(task, _)| task.clone())
    }

    /// Returns the form's name for a task. Kinds of queries that the form does not distinguish
    /// become plain queries. An unknown name stays only within the same dialect (`same`).
    pub(in crate::dialect::ops) fn write_task<'t>(
        &self,
        task: &'t EmbedTask,
        same: bool,
    ) -> Option<&'t str> {
        let find = |task: &EmbedTask| {
            self.task_names.iter().find(|(known, _)| known == task).map(|(_, name)| *name)
        };
        find(task).or_else(|| match task {
            T::Other(word) => same.then_some(word.as_str()),
            T::CodeQuery | T::FactVerification | T::QuestionAnswering => find(&T::Query),
            T::Classification | T::Clustering | T::Document | T::Query | T::Similarity => None,
        })
    }

    /// Reads whether inputs that are too long are truncated: a boolean, or in one form the side
    /// that is cut.
    pub(in crate::dialect::ops) fn read_truncate(&self, value: JsonRef<'_>) -> Option<bool> {
        value.bool().or_else(|| match value.str()?.as_ref() {
            "NONE" => Some(false),
            "END" => Some(true),
            _ => None,
        })
    }
}
