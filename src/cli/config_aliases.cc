#include "cli/config_aliases.h"

#include <algorithm>
#include <iterator>

namespace rung::cli {
namespace {

constexpr std::string_view kTokens =
    "a micro-batch is counted in tokens, not in examples: \"tokens\"; a step has \"gradient_accumulation\" "
    "of them";
constexpr std::string_view kFiles = "rung reads files: \"data\", \"eval_data\", as in data: train.jsonl";
constexpr std::string_view kSteps =
    "it counts otherwise: write a number of optimizer steps, \"eval_steps\", \"save_steps\", \"max_steps\"";
constexpr std::string_view kRecords = "every step is recorded in the folder of \"out\": leave it out";
constexpr std::string_view kTemplate =
    "the model's own chat template is used; \"chat_template\" takes a file of another, \"raw: true\" none";
constexpr std::string_view kArithmetic =
    "\"compute\" chooses the frozen model's arithmetic (auto: bf16 where the machine has it); "
    "what is trained is f32";
constexpr std::string_view kNf4 =
    "write \"quantize\" with one of rung's formats; nf4 is the default of a folder";
constexpr std::string_view kDouble =
    "\"quantize: nf4\" has double quantisation, \"quantize: nf4-single\" has not";
constexpr std::string_view kPacked = "examples are always packed, each by itself: leave it out";
constexpr std::string_view kBetas = "rung's AdamW has betas 0.9 and 0.999, epsilon 1e-8: leave it out";
constexpr std::string_view kMethod = "write \"method\": ladder, xladder or lora (on a 4-bit model: QLoRA)";
constexpr std::string_view kResume =
    "write \"resume: true\": it takes the newest checkpoint in the folder of \"out\"";
constexpr std::string_view kSeed = "one \"seed\" decides initialisation and order";
constexpr std::string_view kNoUse = "it has no use here: leave it out";
constexpr std::string_view kSwitch = "write true or false";

constexpr Alias kAliases[] = {
    {"model_name_or_path", "model", ""},
    {"base_model", "model", ""},
    {"pretrained_model_name_or_path", "model", ""},
    {"checkpoint_dir", "model", ""},
    {"train_file", "data", ""},
    {"data_path", "data", ""},
    {"validation_file", "eval_data", ""},
    {"eval_file", "eval_data", ""},
    {"val_set_size", "valid_fraction", "write a share of the records below 1, or \"eval_data\""},
    {"val_size", "valid_fraction", "write a share of the records below 1, or \"eval_data\""},
    {"output_dir", "out", ""},
    {"out_dir", "out", ""},
    {"adapter_path", "out", ""},
    {"max_seq_length", "max_length", ""},
    {"max_seq_len", "max_length", ""},
    {"model_max_length", "max_length", ""},
    {"sequence_len", "max_length", ""},
    {"seq_len", "max_length", ""},
    {"cutoff_len", "max_length", ""},
    {"num_train_epochs", "epochs", ""},
    {"num_epochs", "epochs", ""},
    {"steps", "max_steps", ""},
    {"lr", "learning_rate", ""},
    {"lr_scheduler_type", "lr_scheduler", ""},
    {"lr_schedule", "lr_scheduler", ""},
    {"lr_warmup_steps", "warmup_steps", ""},
    {"num_warmup_steps", "warmup_steps", ""},
    {"max_norm", "max_grad_norm", ""},
    {"grad_clip", "max_grad_norm", ""},
    {"clip_grad_norm", "max_grad_norm", ""},
    {"optim", "optimizer", ""},
    {"gradient_accumulation_steps", "gradient_accumulation", ""},
    {"grad_accumulation_steps", "gradient_accumulation", ""},
    {"grad_accumulation", "gradient_accumulation", ""},
    {"r", "lora_r", ""},
    {"lora_rank", "lora_r", ""},
    {"target_modules", "lora_targets", ""},
    {"lora_target_modules", "lora_targets", ""},
    {"lora_target", "lora_targets", ""},
    {"lora_modules", "lora_targets", ""},
    {"lora_target_linear", "lora_targets", "write \"lora_targets\" with the layers"},
    {"use_rslora", "rslora", ""},
    {"peft_use_rslora", "rslora", ""},
    {"layers_to_transform", "layers", ""},
    {"peft_layers_to_transform", "layers", ""},
    {"finetuning_type", "method", kMethod},
    {"fine_tune_type", "method", kMethod},
    {"adapter", "method", kMethod},
    {"peft_type", "method", kMethod},
    {"gradient_checkpointing", "recompute", kSwitch},
    {"grad_checkpoint", "recompute", kSwitch},
    {"enable_activation_checkpointing", "recompute", kSwitch},
    {"train_on_inputs", "train_on_prompt", kSwitch},
    {"train_on_input", "train_on_prompt", kSwitch},
    {"completion_only_loss", "train_on_prompt", kSwitch, true},
    {"assistant_only_loss", "train_on_prompt", kSwitch, true},
    {"mask_prompt", "train_on_prompt", kSwitch, true},
    {"eval_every_n_steps", "eval_steps", ""},
    {"checkpoint_save_steps", "save_steps", ""},
    {"save_total_limit", "save_limit", ""},
    {"ckpt_keep_n", "save_limit", ""},
    {"load_best_model_at_end", "load_best", kSwitch},
    {"metric_for_best_model", "eval_metric", ""},
    {"early_stopping_steps", "early_stopping_patience", ""},
    {"resume_from_checkpoint", "resume", kResume},
    {"auto_resume_from_checkpoints", "resume", kResume},
    {"auto_resume", "resume", kResume},
    {"load_in_4bit", "quantize", kNf4, false, true},
    {"quantization_bit", "quantize", kNf4, false, true},
    {"quantization_type", "quantize", kNf4, false, true},
    {"bnb_4bit_quant_type", "quantize", kNf4, false, true},
    {"bnb_4bit_compute_dtype", "compute", kArithmetic},
    {"num_threads", "threads", ""},
    // Of no key of ours, or of another meaning.
    {"per_device_train_batch_size", "", kTokens},
    {"per_device_eval_batch_size", "", kTokens},
    {"micro_batch_size", "", kTokens},
    {"eval_batch_size", "", kTokens},
    {"train_batch_size", "", kTokens},
    {"global_batch_size", "", kTokens},
    {"batch_size", "", kTokens},
    {"iters", "", "it counts micro-batches; \"max_steps\" counts steps of \"gradient_accumulation\" of them"},
    {"warmup", "", "write \"warmup_steps\" or \"warmup_ratio\""},
    {"min_lr", "", "linear and cosine schedules end at 0: leave it out"},
    {"lr_min", "", "linear and cosine schedules end at 0: leave it out"},
    {"scale", "",
     "it multiplies the pairs, as lora_alpha / lora_r does here: write \"lora_alpha\" as scale * lora_r"},
    {"lora_scale", "", "it multiplies the pairs, as lora_alpha / lora_r does here: write \"lora_alpha\""},
    {"num_layers", "", "for the last n layers write \"layers: top:n\""},
    {"lora_layers", "", "for the last n layers write \"layers: top:n\""},
    {"use_dora", "", "there is no DoRA here; \"rslora\" is another scale"},
    {"peft_use_dora", "", "there is no DoRA here; \"rslora\" is another scale"},
    {"lora_bias", "", "biases stay frozen: leave it out"},
    {"dataset", "", kFiles},
    {"datasets", "", kFiles},
    {"dataset_name", "", kFiles},
    {"dataset_dir", "", kFiles},
    {"train_dataset", "", kFiles},
    {"eval_dataset", "", kFiles},
    {"test_datasets", "", kFiles},
    {"template", "", kTemplate},
    {"prompt_template", "", kTemplate},
    {"load_in_8bit", "", kNf4},
    {"bnb_4bit_use_double_quant", "", kDouble},
    {"double_quantization", "", kDouble},
    {"bf16", "", kArithmetic},
    {"fp16", "", kArithmetic},
    {"tf32", "", kArithmetic},
    {"dtype", "", kArithmetic},
    {"torch_dtype", "", kArithmetic},
    {"packing", "", kPacked},
    {"packed", "", kPacked},
    {"sample_packing", "", kPacked},
    {"eval_sample_packing", "", kPacked},
    {"pad_to_sequence_len", "", kPacked},
    {"group_by_length", "", kPacked},
    {"evals_per_epoch", "", kSteps},
    {"saves_per_epoch", "", kSteps},
    {"steps_per_eval", "", kSteps},
    {"save_every", "", kSteps},
    {"eval_strategy", "", kSteps},
    {"evaluation_strategy", "", kSteps},
    {"save_strategy", "", kSteps},
    {"logging_steps", "", kRecords},
    {"logging_strategy", "", kRecords},
    {"logging_dir", "", kRecords},
    {"log_every_n_steps", "", kRecords},
    {"steps_per_report", "", kRecords},
    {"report_to", "", kRecords},
    {"use_tensorboard", "", kRecords},
    {"wandb_project", "", kRecords},
    {"run_name", "", kRecords},
    {"logging_first_step", "", kRecords},
    {"greater_is_better", "",
     "the metric decides: a lower \"loss\" is better, a higher \"token_accuracy\" or \"exact_match\": "
     "leave it out"},
    {"save_only_model", "",
     "a checkpoint holds what \"resume\" needs, the folder of \"out\" the adapter alone: leave it out"},
    {"eval_on_start", "",
     "the first evaluation is after \"eval_steps\"; rung eval without an adapter measures the model alone: "
     "leave it out"},
    {"adam_beta1", "", kBetas},
    {"adam_beta2", "", kBetas},
    {"adam_epsilon", "", kBetas},
    {"data_seed", "", kSeed},
    {"lora_seed", "", kSeed},
    {"resume_adapter_file", "", kResume},
    {"overwrite_output_dir", "", "an earlier run is never overwritten: choose another \"out\""},
    {"trust_remote_code", "", "code of a model is never run: leave it out"},
    {"neftune_noise_alpha", "", "no noise is added to embeddings: leave it out"},
    {"attn_implementation", "", kNoUse},
    {"flash_attention", "", kNoUse},
    {"dataloader_num_workers", "", kNoUse},
    {"preprocessing_num_workers", "", kNoUse},
    {"task_type", "", "rung trains causal language models: leave it out"},
    {"stage", "", "rung fine-tunes on answers (sft): leave it out"},
    {"do_train", "", "that is what the verb does: leave it out"},
    {"do_eval", "", "give \"eval_data\": leave it out"},
    {"push_to_hub", "", "nothing is sent anywhere: leave it out"},
};

constexpr std::string_view kNoWarmup =
    "there it has no warm-up: write constant_with_warmup, or \"lr_scheduler: constant\" with \"warmup_ratio: "
    "0\"";
constexpr ValueAlias kValueAliases[] = {
    {"optimizer", "adamw_torch", "adamw", ""},
    {"optimizer", "adamw_torch_fused", "adamw", ""},
    {"optimizer", "paged_adamw_32bit", "adamw", ""},
    {"optimizer", "adamw_8bit", "adamw8bit", ""},
    {"optimizer", "adamw_bnb_8bit", "adamw8bit", ""},
    {"optimizer", "paged_adamw_8bit", "adamw8bit", ""},
    {"lr_scheduler_type", "constant", "", kNoWarmup},
    {"lr_scheduler", "constant_with_warmup", "constant", ""},
    {"max_steps", "-1", "0", ""},
    {"lora_targets", "all-linear", "all", ""},
    {"lora_target_linear", "true", "all", ""},
    {"lora_target_linear", "false", "", "write \"lora_targets\" with the layers"},
    {"method", "qlora", "lora", ""},
    {"method", "LORA", "lora", ""},
    {"method", "full", "", "the model's own weights stay frozen: ladder, xladder or lora"},
    {"load_in_4bit", "true", "nf4", ""},
    {"load_in_4bit", "false", "", "\"quantize: bf16\" keeps a folder's weights in 16 bits"},
    {"quantization_bit", "4", "nf4", ""},
    {"quantization_bit", "8", "", kNf4},
    {"quantization_type", "nf4", "nf4", ""},
    {"bnb_4bit_quant_type", "nf4", "nf4", ""},
    {"bnb_4bit_quant_type", "fp4", "", kNf4},
    {"bnb_4bit_compute_dtype", "bfloat16", "bf16", ""},
    {"bnb_4bit_compute_dtype", "float32", "f32", ""},
    {"bnb_4bit_compute_dtype", "float16", "", kArithmetic},
    {"eval_metric", "eval_loss", "loss", ""},
    {"load_in_8bit", "false", "", ""},
    {"use_dora", "false", "", ""},
    {"peft_use_dora", "false", "", ""},
    {"lora_bias", "none", "", ""},
    {"bnb_4bit_use_double_quant", "true", "", ""},
    {"double_quantization", "true", "", ""},
    {"fp16", "false", "", ""},
    {"tf32", "false", "", ""},
    {"packing", "true", "", ""},
    {"packed", "true", "", ""},
    {"sample_packing", "true", "", ""},
    {"eval_sample_packing", "true", "", ""},
    {"pad_to_sequence_len", "false", "", ""},
    {"group_by_length", "false", "", ""},
    {"eval_strategy", "steps", "", ""},
    {"evaluation_strategy", "steps", "", ""},
    {"save_strategy", "steps", "", ""},
    {"report_to", "tensorboard", "", ""},
    {"use_tensorboard", "true", "", ""},
    {"logging_first_step", "true", "", ""},
    {"save_only_model", "false", "", ""},
    {"eval_on_start", "false", "", ""},
    {"adam_beta1", "0.9", "", ""},
    {"adam_beta2", "0.999", "", ""},
    {"adam_epsilon", "1e-8", "", ""},
    {"adam_epsilon", "1e-08", "", ""},
    {"overwrite_output_dir", "false", "", ""},
    {"trust_remote_code", "false", "", ""},
    {"task_type", "CAUSAL_LM", "", ""},
    {"stage", "sft", "", ""},
    {"do_train", "true", "", ""},
    {"push_to_hub", "false", "", ""},
};

}  // namespace

std::span<const Alias> Aliases() { return kAliases; }
std::span<const ValueAlias> ValueAliases() { return kValueAliases; }

const Alias* FindAlias(std::string_view name) {
  const auto* found = std::find_if(std::begin(kAliases), std::end(kAliases),
                                   [&](const Alias& alias) { return alias.name == name; });
  return found == std::end(kAliases) ? nullptr : found;
}

bool IsClosed(const Alias& alias) {
  return std::any_of(std::begin(kValueAliases), std::end(kValueAliases), [&](const ValueAlias& value) {
    return value.name == alias.name && (alias.key.empty() || !value.ours.empty());
  });
}

const ValueAlias* FindValueAlias(std::string_view name, std::string_view value) {
  const auto* found =
      std::find_if(std::begin(kValueAliases), std::end(kValueAliases),
                   [&](const ValueAlias& alias) { return alias.name == name && alias.value == value; });
  return found == std::end(kValueAliases) ? nullptr : found;
}

}  // namespace rung::cli
