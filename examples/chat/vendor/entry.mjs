// What the chat page imports. One file, so that one bundle holds one copy of
// supabase-js.
export { createBrowserClient } from '@supabase/ssr';
export { createClient } from '@supabase/supabase-js';
