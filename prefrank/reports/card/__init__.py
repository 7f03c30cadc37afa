"""The model card for the hub: `model_card.write_card`, from a checkpoint, its run files and stated facts."""
