//! `stack limits`: what stack files are bounded by.

use std::io::Write;

use clap::{Args, ValueEnum};

use crate::cli::error::Outcome;
use crate::cli::project::Context;
use crate::cli::table::Table;
use crate::spec::limits::TABLE;
use crate::spec::render;

/// Print the limits of stack files.
#[derive(Debug, Args)]
pub(crate) struct Limits {
    /// How to print: table or json
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    format: Form,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Form {
    /// A line each
    #[default]
    Table,
    /// JSON
    Json,
}

impl Limits {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let text = match self.format {
            Form::Json => render::pretty(&serde_json::to_value(TABLE)?),
            Form::Table => {
                let mut table = Table::new(&["LIMIT", "MOST", "OF"]);
                for limit in &TABLE {
                    let most = format!("{} {}", grouped(limit.most), limit.unit);
                    table.row([limit.name.to_owned(), most, limit.what.to_owned()]);
                }
                table.render()
            }
        };
        context.ui.out().write_all(text.as_bytes())?;
        Ok(0)
    }
}

/// `1048576` as `1,048,576`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([grouped(50), grouped(4096), grouped(1 << 20)], ["50", "4,096", "1,048,576"]);
    }
}
