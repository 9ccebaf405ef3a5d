//! A secret as a setting: a text, an environment variable's name, or a file's path. It is not read here.

use super::reader::Section;
use crate::secret::Secret;

impl Secret {
    pub(super) const EXPECTED: &str = "a text, { env = \"NAME\" } or { file = \"/path\" }";

    /// Takes the secret under this key; `None` when it is not there, or wrong, which is reported.
    pub(super) fn take(section: &mut Section<'_>, key: &str) -> Option<Self> {
        if !section.is_table(key) {
            return section.secret(key, Self::EXPECTED).map(Self::Literal);
        }
        let mut table = section.optional_section(key)?;
        let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let env = table.parsed("env", "the name of an environment variable", filled);
        let file = table.parsed("file", "the path of a file", filled);
        let source = match (env, file) {
            (Some(env), None) => Some(Self::Env(env)),
            (None, Some(file)) => Some(Self::File(file.into())),
            (Some(_), Some(_)) => {
                section.wrong(key, "env and file", Self::EXPECTED);
                None
            }
            (None, None) => {
                section.wrong(key, "neither env nor file", Self::EXPECTED);
                None
            }
        };
        table.finish();
        source
    }
}
