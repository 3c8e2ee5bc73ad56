package auth

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// user is a row of auth.users with what belongs to it. Its JSON is what clients
// call User; hash and tokens are not part of it.
type user struct {
	ID                     uuid.UUID  `json:"id"`
	Aud                    string     `json:"aud"`
	Role                   string     `json:"role"`
	Email                  string     `json:"email"`
	EmailConfirmedAt       *time.Time `json:"email_confirmed_at,omitempty"`
	InvitedAt              *time.Time `json:"invited_at,omitempty"`
	Phone                  string     `json:"phone"`
	PhoneConfirmedAt       *time.Time `json:"phone_confirmed_at,omitempty"`
	ConfirmationSentAt     *time.Time `json:"confirmation_sent_at,omitempty"`
	ConfirmedAt            *time.Time `json:"confirmed_at,omitempty"`
	RecoverySentAt         *time.Time `json:"recovery_sent_at,omitempty"`
	NewEmail               string     `json:"new_email,omitempty"`
	EmailChangeSentAt      *time.Time `json:"email_change_sent_at,omitempty"`
	NewPhone               string     `json:"new_phone,omitempty"`
	PhoneChangeSentAt      *time.Time `json:"phone_change_sent_at,omitempty"`
	ReauthenticationSentAt *time.Time `json:"reauthentication_sent_at,omitempty"`
	LastSignInAt           *time.Time `json:"last_sign_in_at,omitempty"`
	AppMetadata            metadata   `json:"app_metadata"`
	UserMetadata           metadata   `json:"user_metadata"`
	Factors                []factor   `json:"factors,omitempty"`
	Identities             []identity `json:"identities"`
	CreatedAt              time.Time  `json:"created_at"`
	UpdatedAt              time.Time  `json:"updated_at"`
	BannedUntil            *time.Time `json:"banned_until,omitempty"`
	DeletedAt              *time.Time `json:"deleted_at,omitempty"`
	IsAnonymous            bool       `json:"is_anonymous"`
	isSSO                  bool
	password               string
	emailChangeStatus      int // 1 when one of two addresses has confirmed the change
}

// identity is one way in which a user signs in.
type identity struct {
	IdentityID   uuid.UUID  `json:"identity_id"`
	ID           string     `json:"id"`
	UserID       uuid.UUID  `json:"user_id"`
	Data         metadata   `json:"identity_data,omitempty"`
	Provider     string     `json:"provider"`
	LastSignInAt *time.Time `json:"last_sign_in_at"`
	CreatedAt    time.Time  `json:"created_at"`
	UpdatedAt    time.Time  `json:"updated_at"`
	Email        string     `json:"email,omitempty"`
}

// factor is a second factor, of type totp or phone; imported users may have others.
type factor struct {
	ID               uuid.UUID  `json:"id"`
	CreatedAt        time.Time  `json:"created_at"`
	UpdatedAt        time.Time  `json:"updated_at"`
	Status           string     `json:"status"`
	FriendlyName     string     `json:"friendly_name,omitempty"`
	FactorType       string     `json:"factor_type"`
	Phone            string     `json:"phone"`
	LastChallengedAt *time.Time `json:"last_challenged_at"`
}

func (u *user) banned(now time.Time) bool {
	return u.BannedUntil != nil && u.BannedUntil.After(now)
}

func (u *user) confirmed() bool { return u.EmailConfirmedAt != nil || u.PhoneConfirmedAt != nil }

// name is how the audit log calls a user.
func (u *user) name() string {
	if u.Email != "" {
		return u.Email
	}
	return u.Phone
}

func (u *user) hasVerifiedFactor() bool {
	for _, f := range u.Factors {
		if f.Status == "verified" {
			return true
		}
	}
	return false
}

// scanUser reads a row of user_by_id or user_list.
func scanUser(row pgx.CollectableRow) (*user, error) {
	var u user
	var app, meta []byte
	err := row.Scan(&u.ID, &u.Aud, &u.Role, &u.Email, &u.Phone, &u.password,
		&u.EmailConfirmedAt, &u.PhoneConfirmedAt, &u.ConfirmedAt, &u.InvitedAt,
		&u.ConfirmationSentAt, &u.RecoverySentAt, &u.EmailChangeSentAt, &u.PhoneChangeSentAt,
		&u.ReauthenticationSentAt, &u.LastSignInAt, &u.BannedUntil, &u.DeletedAt, &u.CreatedAt, &u.UpdatedAt,
		&u.NewEmail, &u.NewPhone, &u.emailChangeStatus, &app, &meta, &u.IsAnonymous, &u.isSSO)
	if err != nil {
		return nil, err
	}
	u.AppMetadata, u.UserMetadata = storedMetadata(app), storedMetadata(meta)
	utc(&u.EmailConfirmedAt, &u.PhoneConfirmedAt, &u.ConfirmedAt, &u.InvitedAt,
		&u.ConfirmationSentAt, &u.RecoverySentAt, &u.EmailChangeSentAt, &u.PhoneChangeSentAt,
		&u.ReauthenticationSentAt, &u.LastSignInAt, &u.BannedUntil, &u.DeletedAt)
	u.CreatedAt, u.UpdatedAt = u.CreatedAt.UTC(), u.UpdatedAt.UTC()
	return &u, nil
}

func scanIdentity(row pgx.CollectableRow) (identity, error) {
	var i identity
	var data []byte
	err := row.Scan(&i.IdentityID, &i.ID, &i.UserID, &data, &i.Provider, &i.LastSignInAt, &i.CreatedAt, &i.UpdatedAt, &i.Email)
	i.Data = storedMetadata(data)
	utc(&i.LastSignInAt)
	i.CreatedAt, i.UpdatedAt = i.CreatedAt.UTC(), i.UpdatedAt.UTC()
	return i, err
}

func scanFactor(row pgx.CollectableRow) (factor, error) {
	var f factor
	err := row.Scan(&f.ID, &f.CreatedAt, &f.UpdatedAt, &f.Status, &f.FriendlyName, &f.FactorType, &f.Phone, &f.LastChallengedAt)
	utc(&f.LastChallengedAt)
	f.CreatedAt, f.UpdatedAt = f.CreatedAt.UTC(), f.UpdatedAt.UTC()
	return f, err
}

// utc brings times into the zone in which clients see them.
func utc(times ...**time.Time) {
	for _, t := range times {
		if *t != nil {
			in := (*t).UTC()
			*t = &in
		}
	}
}

// loadUser reads a user with identities and factors in one round trip. The error
// is of kind sluice.ErrNotFound when there is none.
func loadUser(ctx context.Context, db pg.Tx, id uuid.UUID) (*user, error) {
	var b pgx.Batch
	b.Queue(sql("user_by_id"), id)
	b.Queue(sql("identity_list"), id)
	b.Queue(sql("factor_list"), id)
	res := db.SendBatch(ctx, &b)
	u, err := readUser(res)
	if cerr := res.Close(); err == nil {
		err = cerr
	}
	return u, pg.Wrap(err, "load user %s", id)
}

func readUser(res pgx.BatchResults) (*user, error) {
	rows, _ := res.Query() // its error is also the rows'
	u, err := pgx.CollectExactlyOneRow(rows, scanUser)
	if err != nil {
		return nil, err
	}
	rows, _ = res.Query()
	if u.Identities, err = pgx.CollectRows(rows, scanIdentity); err != nil {
		return nil, err
	}
	if u.Identities == nil {
		u.Identities = []identity{}
	}
	rows, _ = res.Query()
	u.Factors, err = pgx.CollectRows(rows, scanFactor)
	return u, err
}

// lockUser waits for changes of the user that are under way, then reads it.
func lockUser(ctx context.Context, tx pg.Tx, id uuid.UUID) (*user, error) {
	if err := exec(ctx, tx, "user_lock", id); err != nil {
		return nil, err
	}
	return loadUser(ctx, tx, id)
}

// findUser looks a user up by a normalised address; nil when there is none.
func findUser(ctx context.Context, db pg.Tx, email, phone, aud string) (*user, error) {
	name, address := "user_id_by_email", email
	if email == "" {
		name, address = "user_id_by_phone", phone
	}
	var id uuid.UUID
	err := db.QueryRow(ctx, sql(name), address, aud).Scan(&id)
	if err == nil {
		var u *user
		if u, err = loadUser(ctx, db, id); err == nil {
			return u, nil
		}
	}
	if errors.Is(err, pgx.ErrNoRows) || errors.Is(err, sluice.ErrNotFound) {
		return nil, nil
	}
	return nil, pg.Wrap(err, "%s", name)
}
