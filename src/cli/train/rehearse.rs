//! The base is asked the general questions of rehearsal, once for every base.

use std::process::ExitCode;

use futures_util::StreamExt;
use futures_util::stream;
use indicatif::ProgressBar;

use crate::cli::context::Context;
use crate::cli::output;
use crate::cli::run::interrupt::Interrupts;
use crate::cli::run::prepare;
use crate::provider::Provider;
use crate::provider::Request;
use crate::training;
use crate::training::Record;
use crate::training::Rehearsal;
use crate::trajectory::FinishReason;
use crate::trajectory::Message;

/// The base's answers, from the file of an earlier call or, once `is_sound` finds nothing wrong with what is to be learned,
/// from the base itself. `Err` is the exit code of an interrupt.
pub(super) async fn records(
    context: &Context,
    base_digest: &str,
    is_sound: &dyn Fn() -> anyhow::Result<()>,
) -> anyhow::Result<Result<Vec<Record>, ExitCode>> {
    let rehearsal = Rehearsal::of(&context.home, base_digest);
    if let Some(records) = rehearsal.read()? {
        return Ok(Ok(records));
    }
    is_sound()?;
    let mut interrupts = Interrupts::new()?;
    let records = tokio::select! {
        records = ask(context) => records?,
        interrupt = interrupts.next() => return Ok(Err(ExitCode::from(interrupt.exit_code()))),
    };
    rehearsal.write(&records)?;
    Ok(Ok(records))
}

async fn ask(context: &Context) -> anyhow::Result<Vec<Record>> {
    let engine = prepare::engine(context, prepare::model(context).await?).await?;
    let provider = Provider::InProcess(engine);
    let bar = ProgressBar::hidden();
    if !context.quiet && !context.json {
        output::note(
            "asking the base what it answers to general questions, once for all trainings",
        );
        bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
    }
    let questions: Vec<&str> = training::rehearsal_questions().collect();
    bar.set_length(questions.len() as u64);
    let sampling = training::rehearsal_sampling();
    let one = async |question: &str| {
        let messages = [Message::user(question)];
        let answer = provider.generate(&Request::new(&messages, &sampling), &mut |_| {}).await?;
        bar.inc(1);
        let is_whole = answer.finish_reason == FinishReason::Stop && !answer.text.trim().is_empty();
        anyhow::Ok(is_whole.then(|| Rehearsal::record(question, answer.text.trim_end())))
    };
    let parallel = provider.capabilities().parallel.max(1);
    let records: Vec<anyhow::Result<Option<Record>>> =
        stream::iter(questions).map(one).buffered(parallel).collect().await;
    bar.finish_and_clear();
    let records: anyhow::Result<Vec<Option<Record>>> = records.into_iter().collect();
    Ok(records?.into_iter().flatten().collect())
}
