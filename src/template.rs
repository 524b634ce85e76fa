//! Renders the prompt templates of `templates/`, which are embedded in the binary.

use minijinja::Environment;
use minijinja::UndefinedBehavior;
use minijinja::syntax::SyntaxConfig;
use serde::Serialize;

/// Names and texts of all templates.
pub const TEMPLATES: &[(&str, &str)] = &[
    ("system.j2", include_str!("../templates/system.j2")),
    ("task.j2", include_str!("../templates/task.j2")),
    ("decompose.j2", include_str!("../templates/decompose.j2")),
    ("decompose_retry.j2", include_str!("../templates/decompose_retry.j2")),
    ("plan.j2", include_str!("../templates/plan.j2")),
    ("plan_retry.j2", include_str!("../templates/plan_retry.j2")),
    ("tests.j2", include_str!("../templates/tests.j2")),
    ("brief.j2", include_str!("../templates/brief.j2")),
    ("code.j2", include_str!("../templates/code.j2")),
    ("continue.j2", include_str!("../templates/continue.j2")),
    ("integrate.j2", include_str!("../templates/integrate.j2")),
    ("diagnose.j2", include_str!("../templates/diagnose.j2")),
    ("repair.j2", include_str!("../templates/repair.j2")),
];

/// A template cannot be rendered, for example because it uses a value that was not passed.
#[derive(Debug, thiserror::Error)]
#[error("cannot render the prompt `{name}`")]
pub struct TemplateError {
    name: String,
    source: minijinja::Error,
}

/// The compiled prompt templates.
#[derive(Debug)]
pub struct PromptTemplates(Environment<'static>);

impl Default for PromptTemplates {
    fn default() -> Self {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the default delimiters differ"));
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, text) in TEMPLATES {
            environment.add_template(name, text).expect("the templates compile: tested");
        }
        Self(environment)
    }
}

impl PromptTemplates {
    /// Renders the template `<name>.j2` and trims whitespace at both ends.
    ///
    /// # Errors
    /// [`TemplateError`] when the template does not exist, or uses a value that `values` lacks.
    pub fn render(&self, name: &str, values: impl Serialize) -> Result<String, TemplateError> {
        let render = || {
            let template = self.0.get_template(&format!("{name}.j2"))?;
            template.render(minijinja::value::Serde(values))
        };
        match render() {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(source) => Err(TemplateError { name: name.to_owned(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PromptTemplates;
    use super::TEMPLATES;

    #[test]
    fn passages_stand_before_the_task_and_leave_no_trace_without() {
        let render = |template: &str, documents: &[&str]| {
            let values = serde_json::json!({
                "task": "Do it.", "documents": documents, "path": "a.py", "names": [], "files": [],
                "tests": [], "interfaces": "",
            });
            PromptTemplates::default().render(template, values).unwrap()
        };
        assert_eq!(render("task", &[]), "# Task\nDo it.");
        assert!(render("brief", &[]).starts_with("Do it.\n"));
        let with = "# Documentation\nFrom `a`:\n\nx\n\nFrom `b`:\n\ny\n\n# Task\nDo it.";
        assert_eq!(render("task", &["From `a`:\n\nx", "From `b`:\n\ny"]), with);
        assert!(render("brief", &["From `a`:\n\nx"]).starts_with("From `a`:\n\nx\n\nDo it.\n"));
    }

    #[test]
    fn every_template_is_embedded_and_compiles() {
        let _compiled = PromptTemplates::default();
        let mut in_folder: Vec<String> = std::fs::read_dir("templates")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        in_folder.sort();
        let mut embedded: Vec<&str> = TEMPLATES.iter().map(|(name, _)| *name).collect();
        embedded.sort_unstable();
        assert_eq!(in_folder, embedded);
    }
}
