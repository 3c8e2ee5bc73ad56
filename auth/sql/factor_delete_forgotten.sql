-- Factors that were never verified nor even challenged: their QR code was not read.
delete from auth.mfa_factors f
where user_id = $1 and status = 'unverified' and created_at < $2
  and not exists (select from auth.mfa_challenges where factor_id = f.id)
