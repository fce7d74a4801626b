//! Enums that list themselves: each variant stands next to its word in files and commands.

/// Defines an enum whose values are a closed list of words.
///
/// The enum gets `ALL` (every value with its word, in the order of the documentation), `name` and
/// `parse`. Readers, schema, help and docs take their words from there.
macro_rules! choices {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $word:literal ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        pub enum $name {
            $( $(#[$variant_meta])* $variant ),+
        }

        impl $name {
            /// Every value with its word.
            pub const ALL: &'static [(&'static str, Self)] =
                &[$( ($word, Self::$variant) ),+];

            /// Returns the word of the value.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $word ),+
                }
            }

            /// Returns the value of a word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
            }
        }
    };
}

pub(crate) use choices;
