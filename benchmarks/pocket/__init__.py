"""Build the embedded model of mgrpo_lightning/pocket: tokenizer, training texts, start weights, pretraining."""
