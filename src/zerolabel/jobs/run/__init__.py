"""What a job leaves: settings, claim, model, masks, report."""
